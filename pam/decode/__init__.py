"""Decoding: greedy search, and one file through a trained model."""
