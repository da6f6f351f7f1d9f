"""Figures. Each is a function from numbers to a file; all are readable without colour."""
