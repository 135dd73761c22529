"""Training: settings, evaluation, and what a run records."""
