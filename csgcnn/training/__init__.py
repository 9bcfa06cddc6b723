"""Losses, metrics, the training loop and what it leaves behind; knows neither Hydra nor pymatgen."""
