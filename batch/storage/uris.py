"""What a URI names: a path or an object, as Spark writes it too, or relative to a folder.

    /data/x.png  file:/data/x.png  file:///data/x.png     the local path; %20 in URIs is a space
    s3://bucket/key  s3a://bucket/key  s3n://bucket/key   the object with this very key
    x.png  ./x.png  ../x.png                              from the manifest's folder

In a store there are no folders, so `.` and `..` of a relative one are taken out here, as a path
would be followed. In a whole s3:// URI they are refused: the key may have them, or may not.
"""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batch.storage import objects
from sonode.console import UserError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|file:/", re.IGNORECASE)
_S3 = re.compile(r"s3[an]?://", re.IGNORECASE)
_FILE = re.compile(r"file:(?://(?:localhost)?(?=/)|(?=/[^/]))", re.IGNORECASE)
_DOTS = r"(^|/)\.\.?(/|$)"
# No colon, no dot or nothing before or after a slash: what is written is what is meant.
_PLAIN = r"^(s3://[^/]+/|/)?[^:\s/][^:/]*(/[^:/]+)*$"


def plain(uri: str) -> str:
    """Give `uri` in the form that the rest of the program takes: a path, or s3://bucket/key."""
    if found := _S3.match(uri):
        return f"s3://{uri[found.end() :]}"
    if found := _FILE.match(uri):
        return unquote(uri[found.end() :])
    return uri


def argument(uri: str) -> str:
    """As `plain`, of what the user gave. Raises UserError for what `fault` would refuse."""
    if not uri.strip():
        raise UserError(f"{uri!r}: no path (an unset variable?); give a path or an s3:// URI")
    if _has_other_scheme(uri):
        raise UserError(f"{uri}: a scheme that is not s3:// or file:///; give one, or a path")
    if _S3.match(uri) and re.search(_DOTS, objects.split_s3(plain(uri))[1]):
        raise UserError(f"{uri}: S3 does not resolve . and ..; give the resolved key")
    return plain(uri)


def absolute(uri: str, folder: str) -> str:
    """Give the absolute path or s3://bucket/key that `uri` names, in `folder` if it is relative."""
    # By hand: pathlib would be half of what a row costs in a manifest of millions.
    if ":" in uri:
        uri = plain(uri)
    if uri.startswith(("s3://", "/")):
        return uri
    joined = f"{folder.rstrip('/')}/{uri}"
    if objects.is_s3(folder) and re.search(_DOTS, uri):
        return _without_dots(joined)
    return joined


def fault(uri: str | None, folder: str) -> str | None:
    """What is wrong with an image_uri, or None; the text holds nothing of it."""
    found = None
    if not uri or not uri.strip():
        found = "is missing; give every row one"
    elif _has_other_scheme(uri):
        found = "has a scheme that is not s3:// or file:///; give an s3:// URI or a path"
    elif objects.is_s3(named := absolute(uri, folder)):
        bucket, key = objects.split_s3(named)
        if not _S3.match(uri):
            if not key:
                found = "leads out of the bucket of the manifest's folder; give an s3:// URI"
        elif not bucket or not key:
            found = "is not s3://bucket/key"
        elif re.search(_DOTS, key):
            found = "has . or .. as a folder, which S3 does not resolve; give the resolved key"
    return found


def _has_other_scheme(uri: str) -> bool:
    return bool(_SCHEME.match(uri) and not _S3.match(uri) and not _FILE.match(uri))


def odd(uris: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Whether each is other than plainly sound and written in the one way there is."""
    plain = pc.match_substring_regex(uris, _PLAIN)
    dots = pc.match_substring_regex(uris, _DOTS)
    found: npt.NDArray[np.bool_] = np.asarray(
        pc.fill_null(pc.or_(pc.invert(plain), dots), True), np.bool_
    )
    return found


def same(uris: pa.ChunkedArray, folder: str) -> pa.Array:
    """Give each in the form that is equal where two name the same image.

    For comparing only: a link before `..` could make the path another.
    """
    one = uris.combine_chunks().cast(pa.string())
    plain = pc.invert(pa.array(odd(uris)))
    relative = pc.invert(pc.match_substring_regex(one, "^(s3:/)?/"))
    joined = pc.binary_join_element_wise(f"{folder.rstrip('/')}/", one, "")
    found = pc.if_else(relative, joined, one)
    if pc.all(plain).as_py():
        return found
    by_hand = pa.array(
        [same_one(uri, folder) for uri in one.filter(pc.invert(plain)).to_pylist()], pa.string()
    )
    return pc.replace_with_mask(found, pc.invert(plain), by_hand)


def same_one(uri: str | None, folder: str) -> str | None:
    """As `same`, of one."""
    if uri is None:
        return None
    named = absolute(uri, folder)
    return named if objects.is_s3(named) else posixpath.normpath(named)


def buckets(uris: pa.ChunkedArray, folder: str) -> set[str]:
    """Give the buckets that image_uris name, as s3:// URIs."""
    names = pc.extract_regex(same(uris, folder), "^s3://(?P<bucket>[^/]+)/").field("bucket")
    return {f"s3://{name}/" for name in names.unique().to_pylist() if name}


def _without_dots(uri: str) -> str:
    """Follow `.` and `..` in a key; above the bucket's top there is none, and the key is empty."""
    bucket, key = objects.split_s3(uri)
    parts: list[str] = []
    for part in key.split("/"):
        if part == "..":
            if not parts:
                return f"s3://{bucket}/"
            parts.pop()
        elif part != ".":
            parts.append(part)
    return f"s3://{bucket}/{'/'.join(parts)}"
