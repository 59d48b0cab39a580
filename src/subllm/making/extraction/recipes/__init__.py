"""Recipes: all that decides how a sub-model is made, in a documented file."""
