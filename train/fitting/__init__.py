"""Batches -> a checkpoint that is calibrated, knows what it learned from, and what it says.

Start at `task`, which has the defaults of `model.*` (the trunk, too), then `losses`, `calibration`
and `export`; `predictions` applies a checkpoint to a cohort. May import `train.data`,
`train.cohorts` and `train.statistics`.
"""
