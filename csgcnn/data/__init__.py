"""Data sets: graph stores and their cache, batches, targets, splits and augmentation."""
