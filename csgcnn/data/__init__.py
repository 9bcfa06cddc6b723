"""Graphs in, batches out: knows torch, not pymatgen."""
