"""A request's image -> the crop of its RoI, and warnings about it.

Start at `prepare`; `quality` makes the warnings about a crop. How bytes become pixels is in
`model_def.images`, since training reads them, too. May import `model_def` and, of `handlers`,
`errors` and `requests`.
"""
