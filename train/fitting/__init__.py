"""Training: from a cohort to a checkpoint that is calibrated and knows what it learned from.

Start at `cli` (the command), then `task`, `losses` and `datamodule`. May import `train.cohorts` and
`train.statistics`.
"""
