"""From source archives to packed tokens: everything that happens to text before a model sees it."""
