"""Found networks taught by large ones: teachers and their logits, lessons for ``nas.train.fit``, the jobs and the report."""
