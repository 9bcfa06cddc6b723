"""Predictions, metrics, baselines and figures."""
