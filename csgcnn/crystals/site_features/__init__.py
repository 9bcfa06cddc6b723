"""Site features of pretrained interatomic potentials: what a potential knows of each site."""
