"""Data sets and their lists, tokens and training batches."""
