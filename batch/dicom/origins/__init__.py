"""A PACS as an origin of objects: asked for studies and their objects, and taken from.

Start at `origin`. A DICOMweb service is in `dicomweb`; a DIMSE node in `dimse`, with the `receiver`
of what it sends by C-MOVE. May import `batch.dicom.peers`.
"""
