"""A PACS as a peer: its address, whom sonode is there, and what a connection to it can end in.

Start at `address`. Taking from a PACS is `batch.dicom.pulling`, sending to it
`batch.dicom.pushing`.
"""
