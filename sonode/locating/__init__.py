"""Images without boxes -> proposed RoIs: a detector that is trained on the boxes of a cohort.

Start at `detector` (the network and its folder); `fit` and `evaluate` are the researcher's side of
it, `propose` the night's. The first two may import all of `train`; `propose` may import
`batch.manifest` and `batch.storage`, and nothing of `train`. All read pixels by `model_def.images`,
as serving does. Nothing imports `sonode.locating` but the command line.
"""
