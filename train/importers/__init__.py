"""What others store (tables, LabelImg, DICOM, public data sets), and the phantom, -> a cohort.

One file a source. Each fills a draft (`draft`), which `write_draft` checks and writes. Start at
`table`. May import `train.tables` and `train.cohorts`.
"""
