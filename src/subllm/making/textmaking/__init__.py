"""Text by a dense base: seed tasks, what it answers, what of that is fit to learn from."""
