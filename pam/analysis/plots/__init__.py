"""Figures, each a function from numbers to a file; none needs colour to be read."""
