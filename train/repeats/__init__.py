"""The networks and forests that the paper trains several times, and measures of their mean.

Start at `variants`, which names the networks; `runs` trains each once and predicts the test part,
`measured` has the mean over the repeats. May import all of `train` but `paper` and `commands`.
"""
