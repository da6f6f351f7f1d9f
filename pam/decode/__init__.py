"""Decoding: greedy search over data sets, and an API for single clips."""
