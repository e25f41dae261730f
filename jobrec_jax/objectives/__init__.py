"""Losses and weights as pure functions."""
