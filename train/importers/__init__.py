"""What others store (tables, LabelImg, public data sets), and the phantom, -> a cohort.

Start at `all_importers`, which names them; `cohort_builder` is what they share. May import
`train.cohorts`.
"""
