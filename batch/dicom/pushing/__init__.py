"""The objects of OUT -> a PACS, with ledgers of what became of each.

Start at `push`. A PACS is a `destination`: a DICOMweb service (`stow`) or a DIMSE node (`cstore`).
"""
