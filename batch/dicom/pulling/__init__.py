"""A PACS -> objects in OUT, and a manifest of them that `sonode score` takes.

Start at `pull`. The PACS is one of `batch.dicom.origins`. What became of each of its objects is in
a `ledger`, one file a study; the `manifest` follows from it.
"""
