"""Measures of predictions, their intervals and tests, on plain arrays.

Start at `binary`. Imports nothing else of this project.
"""
