"""Packed models given away and taken in: hub repositories, directories, files."""
