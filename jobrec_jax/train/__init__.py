"""Training: state, loop, checkpoints, signals, and what each stage minimises."""
