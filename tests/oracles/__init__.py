"""Slow, obvious reference implementations that the product is compared with."""
