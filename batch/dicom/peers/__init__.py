"""A PACS as a peer: its address, whom sonode is there, and what a connection to it can end in.

Start at `address`. Taking from a PACS is `batch.dicom.pulling`, sending to it
`batch.dicom.pushing`.
"""

import logging

# They quote UIDs, and what was sent.
for _name in ("dicomweb_client", "retrying", "urllib3", "pynetdicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)
