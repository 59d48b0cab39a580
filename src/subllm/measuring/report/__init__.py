"""Records in, tables and pictures out; no weights needed."""
