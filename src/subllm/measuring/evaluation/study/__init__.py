"""A study: sub-models of several calibrations, each measured on several tasks.

options    what is asked for
ground     a base as a study needs it
models     which models take part, found in the store or to be made
estimate   how long it will take
plan       the grid: every model on every task, and what of it is there already
run        the grid, cell by cell, into records; then the masks, compared
contrasts  two cells against each other, problem by problem
"""
