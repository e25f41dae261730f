"""Texts of a few words each, in which the market's first version wrote, and a market may still."""
