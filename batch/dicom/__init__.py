"""Scored DICOM images as DICOM objects, and their way to a PACS.

Start at `beside_results`. Of each image three objects are made (`objects`): a Comprehensive SR, a
Secondary Capture, and a presentation state that draws the box on the original. Needs the extra
`dicom`.
"""
