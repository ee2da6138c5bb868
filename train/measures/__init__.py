"""Predictions -> every measure of every head, as JSON: on images and patients, in subgroups.

Start at `evaluate`; `measure` says what a measure is. May import `train.fitting` and what is below
it.
"""
