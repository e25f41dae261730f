"""Noisy labels refined by the verdicts of experts."""
