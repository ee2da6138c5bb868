"""Boxes that were drawn elsewhere: in a DICOM SR or presentation state, or with LabelImg.

Training and the batch read them by the same code. Imports nothing outside this package.
"""
