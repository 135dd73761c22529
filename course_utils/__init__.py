"""Helper package of the code-completion course; importing it does nothing but define names."""
