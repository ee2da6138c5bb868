"""Every limit of an image's size, in training and in serving: what is larger is refused by name."""

from __future__ import annotations

MAX_BYTES = 32 * 2**20
"""Of a still image; an ultrasound frame of 1 Mpx has 3 MB uncompressed."""
MAX_PIXELS = 16_000_000
"""Of one frame, read from the header before anything is decoded: twice a 4K screen."""
MAX_SCANS = 100
"""Of a JPEG. Usual are 1 to 11, and each goes over all pixels, which it may hold in a few bytes."""
MAX_TILE_PIXELS = 4096 * 4096
"""Of a TIFF's tile that is taken though the image be smaller."""

MAX_DICOM_BYTES = 256 * 2**20
"""Of a DICOM file, deflated or inflated: a cine loop is sent whole, though one frame is decoded."""
MAX_FRAMES = 10_000
"""Of a DICOM file: more than five minutes at 30 frames a second."""
MAX_READS = 400_000
"""Pieces that the header and the table of frames may have: nested empty items are cheap to send and
costly to read. A loop of `MAX_FRAMES` takes a tenth of it."""
MAX_ELEMENT_BYTES = 2**18
"""Of a DICOM header's element that is kept; a full 16-bit palette has 2**17."""

MAX_TEXT = 256
"""Characters of any field of a request but the image; long digits are costly to parse."""
