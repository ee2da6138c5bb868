"""`sonode compare`: two archives on one manifest, judged by a policy before a rollout.

Start at `commands`. The one folder of `archives` that imports `batch` and `train.measures`.
"""
