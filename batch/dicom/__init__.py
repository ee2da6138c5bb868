"""DICOM as hospitals use it: images from a PACS, and results back into it. Extra `dicom`.

Start at `commands`. `pulling` takes images from a PACS, `making` turns scores into objects, and
`pushing` sends those. What each end of a connection is, is in `peers`.
"""
