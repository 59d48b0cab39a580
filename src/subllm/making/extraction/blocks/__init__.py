"""The blocks of a model as extraction runs them, one at a time."""
