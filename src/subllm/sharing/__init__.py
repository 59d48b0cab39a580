"""Models given away and taken in.

`export` writes what other programs read, `exchange` pushes and pulls packed models: hub
repositories, directories, files.
May import `models`, `kernels` and the shared files.
"""
