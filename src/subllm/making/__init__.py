"""From a base to the sub-model of a language.

`calibration` and `textmaking` give text, `pruning` chooses weights, `recovery` lets them learn,
`extraction` puts these together, block by block, and commits to the store.
May import `engine`, `models`, `kernels` and the shared files.
"""
