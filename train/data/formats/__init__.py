"""Formats of training data on disk."""
