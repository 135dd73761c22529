"""Running generated programs, confined so that they can neither forge a pass nor do harm."""
