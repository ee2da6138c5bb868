"""Boxes that were drawn elsewhere, as training and the batch both read them.

Start at `labelimg` (Pascal VOC and YOLO) or `dicom_rois` (DICOM SR and presentation states).
Imports nothing outside this package.
"""
