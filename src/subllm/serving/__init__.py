"""Sub-models behind HTTP.

`routing` says which model answers a request and why, `server` speaks the dialects of editors and
gives the work to the engine's thread.
May import `making`, `engine`, `models`, `kernels` and the shared files.
"""
