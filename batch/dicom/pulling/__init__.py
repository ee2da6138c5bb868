"""A PACS -> objects in OUT, and a manifest of them that `sonode score` takes.

Start at `pull`. A PACS is an `origin`: a DICOMweb service (`web`) or a DIMSE node (`node`). What
became of each of its objects is in a `ledger`, one file a study; the `manifest` follows from it.
"""
