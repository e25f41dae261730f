"""Measures, each with its interval, and the audit of data."""
