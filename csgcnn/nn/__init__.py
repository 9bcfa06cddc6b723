"""Batches in, predictions out: plain tensors, usable from a notebook."""
