"""Predictions -> measures, comparisons and pages that a reviewer reads.

Start at `report` (one checkpoint) and `versus` (two). May import all of `train` but `radiomics`.
"""
