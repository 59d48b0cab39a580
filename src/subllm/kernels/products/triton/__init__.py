"""Packed matrices and the rest of a decoder on a GPU; `kernels.triton_ops` is the door."""
