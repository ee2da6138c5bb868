"""An image's bytes -> grey pixels of the stored frame -> the crop of a RoI, within limits.

Start at `decode`, which sorts out who decodes what; `dicom` and the files beside it are for DICOM
alone; `quality` makes the warnings about a crop. May import `model_def` and, of `handlers`,
`errors` and `requests`.
"""
