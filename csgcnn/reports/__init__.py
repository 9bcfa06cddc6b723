"""Reports of predictions, runs and data sets: one HTML file each, which needs no network."""
