"""Fetching bases and data sets: the only code that opens outbound connections."""
