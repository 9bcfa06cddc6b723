"""Configuration: keys, checks and objects built from it."""
