"""Predictions of very many crystals: kept as they come, several processes, the wanted ones in a table."""
