"""Predictions -> measures, comparisons and pages that a reviewer reads.

Start at `report` (one checkpoint), `external` (one, on other cohorts) and `versus` (two). May
import all of `train` but `radiomics`.
"""
