"""Measuring models: pass@k in a sandbox, perplexity, other domains, masks compared."""
