"""What pruning each group of matrices costs a model, measured, and the allocation it leads to."""
