"""Tools for instructors and CI; nothing else in the package imports them."""
