"""Crystal structures and their graphs; the only package that uses pymatgen and spglib."""
