"""Models of the course: configurations, fresh weights, generation."""
