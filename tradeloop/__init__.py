"""A learning loop for trading models."""
