"""Public data sets -> a cohort, one file a set.

Start at `busi`. May import what `train.importers` may.
"""
