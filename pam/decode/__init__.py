"""Decoding: searches over data sets, and an API for single recordings."""
