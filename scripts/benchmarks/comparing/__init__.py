"""Speed against quality of every way to serve a base here: what `scripts/bench pareto` does."""
