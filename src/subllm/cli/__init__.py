"""The command line: one file per command, and the only place that puts the parts together.

Commands read settings, open the store, call the rooms and print. What takes long to import is
imported where it is used, so that `--help` and `complete` start at once.
May import every room.
"""
