"""An image's bytes -> grey pixels of the stored frame -> the crop of a RoI, within limits.

Start at `decode`, which sorts out who decodes what; `dicom` and the files beside it are for DICOM
alone; `quality` is what is said of a crop beside its score. May import `model_def` and, of
`handlers`, `errors` and `requests`.
"""
