"""Tools that only maintainers run, from the top folder of the repository."""
