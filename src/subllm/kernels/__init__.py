"""How packed weights look, and what computes on them.

`sparsity` has patterns, masks and the packed layout, `native` the compiled engine of CPUs, and
`products` the operations that backends call, with Triton's kernels and a slow reference.
May import the shared files alone: no models, no tokenizers, no files of a store.
"""
