"""Damaged packed files, and a process that runs models on them."""
