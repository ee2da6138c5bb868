"""What others store (tables, LabelImg, DICOM, public data sets), and the phantom, -> a cohort.

Start at `table`; there is one file a source, those of public data sets in `public_sets`. Each fills
a draft (`draft`), which `write_draft` checks and writes. May import `train.tables` and
`train.cohorts`.
"""
