"""An example of a package that adds to farfeel. Each module is one addition; pyproject.toml names it."""
