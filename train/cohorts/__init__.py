"""The cohort: lesion boxes with labels in one Parquet table, checked, described and split.

Start at `cohort`. May import `model_def` and `sonode`; nothing else of `train` but `pages`.
"""
