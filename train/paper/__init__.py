"""The paper reproduced on a cohort: which networks are trained, its tables and figures, one page.

Start at `command`. Trains and measures by `evidence` and `radiomics`, and adds no method of its own
but the mean over repeats. May import all of `train`.
"""
