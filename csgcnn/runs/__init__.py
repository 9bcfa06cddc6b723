"""Run directories, checkpoints, and tables of results."""
