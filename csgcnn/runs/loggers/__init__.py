"""Records of trainings in services for experiments, one module per service."""
