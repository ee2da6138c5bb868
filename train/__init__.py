"""From a cohort to a checkpoint, and the evidence for it.

Start at `commands`; `cohorts` -> `data` -> `fitting` -> `evidence` is the way of the data,
and the rest builds on those. May import `model_def` and `sonode`.
"""
