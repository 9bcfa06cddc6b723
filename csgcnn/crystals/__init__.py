"""Structures in, graphs out: the only room that knows pymatgen."""
