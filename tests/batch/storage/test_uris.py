from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from batch.storage import objects, uris
from sonode.console import UserError

LOCAL = {
    "x.png": "/night/x.png",
    "/z.dcm": "/z.dcm",
    "./x.png": "/night/./x.png",  # followed by the file system, and through links
    "../x.png": "/night/../x.png",
    "file:///data/x.png": "/data/x.png",
    "file:/data/x.png": "/data/x.png",  # as Spark's binaryFile writes it
    "file://localhost/data/x%20y.png": "/data/x y.png",
    "file:///data/100%25.png": "/data/100%.png",
    "FILE:///data/x.png": "/data/x.png",
    "100%25.png": "/night/100%25.png",
    "s3a://b/k/x.png": "s3://b/k/x.png",
    "s3n://b/k//x%20y.png": "s3://b/k//x%20y.png",
    "S3://b/k": "s3://b/k",
    "a:b.png": "/night/a:b.png",
}
IN_A_STORE = {
    "x.png": "s3://b/m/night/x.png",
    "./images/x.png": "s3://b/m/night/images/x.png",
    "../x.png": "s3://b/m/x.png",
    "../../x.png": "s3://b/x.png",
    "a/./b/../x.png": "s3://b/m/night/a/x.png",
    "a..b/.x/...png": "s3://b/m/night/a..b/.x/...png",
    "a//x.png": "s3://b/m/night/a//x.png",
    "/z.dcm": "/z.dcm",
}


@pytest.mark.parametrize(("folder", "named"), [("/night", LOCAL), ("s3://b/m/night", IN_A_STORE)])
def test_what_an_image_uri_names(folder: str, named: dict[str, str]) -> None:
    assert {uri: uris.absolute(uri, folder) for uri in named} == named
    assert [uris.fault(uri, folder) for uri in named] == [None] * len(named)
    column = pa.chunked_array([list(named)[:3], [None, *list(named)[3:]]])
    expected = [uris.same_one(uri, folder) for uri in named]
    assert uris.same(column, folder).to_pylist() == [*expected[:3], None, *expected[3:]]


def test_a_relative_path_reads_the_same_image_in_a_store_and_on_disk(folder: str) -> None:
    place = objects.join(folder, "m/night")
    objects.write(objects.join(folder, "m/x.png"), b"up")
    objects.write(objects.join(place, "images/x.png"), b"below")
    read = {
        uri: objects.read(uris.absolute(uri, place)).data
        for uri in ("../x.png", "./images/x.png", "images/../images/x.png", "../night/images/x.png")
    }
    assert list(read.values()) == [b"up", b"below", b"below", b"below"]


@pytest.mark.parametrize(
    ("uri", "folder", "fault"),
    [
        (None, "/night", "is missing"),
        (" ", "/night", "is missing"),
        ("http://pacs/smith-1970", "/night", "has a scheme that is not s3:// or file:///"),
        ("file://pacs/smith-1970", "/night", "has a scheme that is not s3:// or file:///"),
        ("s3://smith-1970", "/night", "is not s3://bucket/key"),
        ("s3a://smith-1970/", "/night", "is not s3://bucket/key"),
        ("../../../smith-1970", "s3://b/m/night", "leads out of the bucket"),
        ("s3://b/m/../smith-1970", "/night", "has . or .. as a folder"),
        ("s3a://b/./smith-1970", "/night", "has . or .. as a folder"),
    ],
)
def test_what_names_nothing_is_a_fault(uri: str | None, folder: str, fault: str) -> None:
    found = uris.fault(uri, folder)
    assert found is not None
    assert found.startswith(fault)
    assert "smith-1970" not in found
    assert uris.odd(pa.chunked_array([pa.array([uri], pa.string())])).tolist() == [True]


def test_an_argument_that_is_empty_is_not_this_folder() -> None:
    for uri in ("", " "):
        with pytest.raises(UserError, match=r"no path \(an unset variable"):
            uris.argument(uri)


def test_most_uris_need_no_second_look() -> None:
    plain = ["x.png", "images/x.png", "/data/x.png", "s3://b/m/x.png", "smith, anna/x y.png"]
    assert not uris.odd(pa.chunked_array([plain])).any()


def test_buckets_are_those_that_are_read(tmp_path: Path) -> None:
    column = pa.chunked_array([["x.png", "/y.png", "s3a://other/z.png", "file:///w.png"]])
    assert uris.buckets(column, "s3://b/m") == {"s3://b/", "s3://other/"}
    assert uris.buckets(column, str(tmp_path)) == {"s3://other/"}
