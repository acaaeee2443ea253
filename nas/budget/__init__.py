"""How a run's wall time is shared out between its parts, and how the run keeps to it."""
