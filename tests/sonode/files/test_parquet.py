"""sonode/files/parquet.py: files that stand one behind the other."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sonode.files.parquet import is_joined


def parquet(text: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [text]}), sink, compression="none", use_dictionary=False)
    return sink.getvalue()


@pytest.mark.parametrize("text", ["a", "PAR1PAR1", "\x00\x00\x00\x00PAR1PAR1", "\x01" * 9 * 4])
def test_only_a_footer_before_the_seam_makes_two_of_them(text: str) -> None:
    one = parquet(text)
    assert not is_joined(one)
    assert is_joined(one + one)
    assert is_joined(parquet("other") + one)


def test_what_is_no_parquet_file_is_not_two() -> None:
    for data in (b"", b"PAR1", b"PAR1PAR1", b"x" * 12 + b"\x08\x00\x00\x00PAR1PAR1"):
        assert not is_joined(data)
