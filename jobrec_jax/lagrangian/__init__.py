"""Constrained optimisation that knows nothing of jobs: duals, exact solutions, certificates."""
