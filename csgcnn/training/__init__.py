"""Training: the loop, losses, schedules, checkpoints, resuming and transfer of weights."""
