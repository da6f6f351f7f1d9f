"""A page in the browser: ask trained systems about recordings."""
