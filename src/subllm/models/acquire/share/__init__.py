"""Packed models on their way from store to store: by a hub, a directory or a file."""
