"""Weights that all networks of a space share: the bank, its views, steps and file; scores by inheritance, and how well they rank."""
