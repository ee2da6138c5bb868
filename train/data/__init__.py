"""Cohort -> batches: which image is in which part, its crop, its augmentation, and leakage.

Start at `datamodule`. May import `train.cohorts`.
"""
