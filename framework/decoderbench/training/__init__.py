"""Training, evaluating and timing one cell."""
