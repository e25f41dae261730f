"""Runs: settings, stages with kept results, and what scripts and notebooks call."""
