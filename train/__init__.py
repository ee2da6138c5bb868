"""From a cohort to a checkpoint, and the evidence for it.

Start at `commands`. The data goes through `cohorts`, `data`, `fitting`, `measures` and `evidence`,
in this order; the rest builds on those. May import `model_def` and `sonode`.
"""
