"""Heat maps: what in the crop a head's logit comes from.

Start at `heatmaps` (one row's maps); `attribution` has the methods; `model_def.overlay` colours a
map. May import `model_def`, `handlers.images`, `errors`, `requests` and `responses`.
"""
