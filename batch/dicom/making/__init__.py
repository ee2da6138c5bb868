"""A scored image -> its DICOM objects, beside the results.

Start at `beside_results`. Of each image `objects` makes three: a Comprehensive SR, a Secondary
Capture, and a presentation state that draws the box on the original. `source` lists the tags that
are copied from the image; `structured_report` has what the SR says.
"""
