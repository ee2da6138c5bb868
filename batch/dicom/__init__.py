"""DICOM as hospitals use it: images from a PACS, and results back into it. Extra `dicom`.

Start at `commands`. `pulling` takes images from a PACS (one of `origins`), `making` turns scores
into objects, and `pushing` sends those. What each end of a connection is, is in `peers`.
"""

import logging
import warnings

# They quote UIDs, what was sent, and values of files, patients' names among them.
for _name in ("dicomweb_client", "retrying", "urllib3", "pynetdicom", "pydicom", "highdicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)
for _name in ("pydicom", "highdicom"):
    warnings.filterwarnings("ignore", module=rf"{_name}\.")
