"""Trained experts in use: scores of pairs, calibrated probabilities, the policy."""
