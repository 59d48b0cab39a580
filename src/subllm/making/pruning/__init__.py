"""Pruning methods: tensors in, masks out."""
