"""Predictions -> measures, plots and the page that a reviewer reads.

Start at `report` (one checkpoint on one cohort); `measures` says what a measure is. May
import `fitting` and what is below it.
"""
