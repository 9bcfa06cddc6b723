"""CIF files: the crystal that a file describes, or a refusal that names site, key or block."""

from csgcnn.crystals.cif.reader import cif_blocks, read_cif

__all__ = ["cif_blocks", "read_cif"]
