"""Runs packed models: requests in, tokens out.

A scheduler, keys and values from one budget, drafts, and a backend for each kind of machine. It
knows no HTTP, no language and no pruning method.
May import `models`, `kernels` and the shared files.
"""
