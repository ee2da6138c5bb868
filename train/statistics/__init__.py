"""Measures of predictions, their intervals and tests, on plain arrays.

Start at `binary`, which also chooses thresholds; `interaction` has tests between groups and Holm's
adjustment. Imports nothing else of this project.
"""
