"""An image's bytes -> grey pixels of one stored frame, within limits, in training and in serving.

Start at `decode`; `formats` and the checks beside it are for still images, `dicom` for DICOM. May
import `limits` and `preprocessing` of `model_def`.
"""
