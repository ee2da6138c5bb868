"""A DICOM file's bytes -> one stored frame.

Start at `decode`. May import `errors`, `frame` and `jpeg_checks` of `model_def.images`.
"""
