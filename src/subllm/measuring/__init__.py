"""How good and how fast a model is.

`evaluation` asks it (programs in a sandbox, holes, perplexity, studies of many models), `report`
turns records into tables and pictures.
May import `making`, `engine`, `models`, `kernels` and the shared files.
"""
