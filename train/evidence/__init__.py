"""One checkpoint on one cohort: measures, plots and heat maps as the page that a reviewer reads.

Start at `report`. May import `train.measures` and what is below it.
"""
