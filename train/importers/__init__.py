"""What others store (tables, LabelImg, public data sets), and the phantom, -> a cohort.

Start at `every`, which names them all; `draft` is what they share. May import `train.cohorts`.
"""
