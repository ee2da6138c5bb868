"""Parquet files: how they are written, and what a reader of one from outside has to look at."""

from __future__ import annotations

import io
from mmap import mmap

import pyarrow as pa
import pyarrow.parquet as pq

ROI_COLUMNS = ("roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max")
"""A box in cohorts, manifests and results: pixels of the stored frame, the last two exclusive."""

_MARK = (
    b"PAR1"  # at a Parquet file's begin and end; before the end its footer and the footer's length
)


def file_bytes(table: pa.Table) -> bytes:
    """The table as a file whose pages have checksums."""
    sink = io.BytesIO()
    pq.write_table(table, sink, write_page_checksum=True)
    return sink.getvalue()


def is_joined(data: bytes | mmap) -> bool:
    """Whether Parquet files stand one behind the other: readers take the last footer alone.

    They see the rows of one of them, or none. A text may contain PAR1PAR1: before the seam has to
    stand a footer.
    """
    seam = data.find(2 * _MARK)
    while seam >= 0:
        length = int.from_bytes(data[max(seam - 4, 0) : seam], "little")
        if length <= seam - 8:
            footer = data[seam - 4 - length : seam + 4]
            try:
                pq.read_metadata(pa.BufferReader(_MARK + footer))
                return True
            except (pa.ArrowException, OSError):
                pass
        seam = data.find(2 * _MARK, seam + 1)
    return False
