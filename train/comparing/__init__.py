"""Two models on the same images: AUC, rates, agreement, with intervals and p-values.

Start at `versus` (two evaluations); `agreement` is what `sonode compare` measures of two archives.
May import `evidence` and what is below it.
"""
