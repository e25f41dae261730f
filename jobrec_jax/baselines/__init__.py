"""Rivals behind fit and score, and the truth as ceiling."""
