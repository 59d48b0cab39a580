"""Rows of data sets, wherever they are for: read, digested, chosen by a seed."""
