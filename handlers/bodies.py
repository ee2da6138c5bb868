"""A request row of TorchServe -> its fields by name, whichever form it has.

The batch job builds the same rows, so that both use one parser:

* raw bytes: `{"body": bytes}`;
* multipart: `{"image": bytes, "roi": b"x0,y0,x1,y1", "explain": b"gradcam:alnm", ...}`;
* JSON: `{"body": {"image": base64, "roi": [x0, y0, x1, y1], "explain": "gradcam", ...}}`.

base64 may be in lines, in a data URI, URL-safe or unpadded. Raw bytes and JSON may come with
`Content-Encoding: gzip`, up to `MAX_BYTES` inflated; TorchServe reads no encoded form.

The headers `X-Roi: x0,y0,x1,y1`, `X-Explain` and `X-Frame` can replace the fields in all three. A
field that is also given as a header is refused: an ignored RoI would score another lesion.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping

from handlers.errors import ImageTooLarge, MalformedRequest, UnsupportedEncoding
from handlers.inflate import CODINGS, BadGzip, gunzip
from model_def.limits import MAX_BYTES, MAX_DICOM_BYTES

HEADERS = {"x-roi": "roi", "x-explain": "explain", "x-frame": "frame"}
PLAIN = ("", "identity")  # as Content-Encoding
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_NO_GZIP = "body: Content-Encoding is gzip, but the body is not valid gzip; compress it, or drop it"


def fields(row: Mapping[str, object], headers: Mapping[str, str]) -> dict[str, object]:
    """The named fields of the row, and those of the `headers` (names in lower case).

    Raises MalformedRequest, ImageTooLarge, UnsupportedEncoding: naming the field and the remedy.
    """
    found = _body_fields(row, headers)
    for header, name in HEADERS.items():
        if header not in headers:
            continue
        if found.get(name) is not None:
            raise MalformedRequest(
                f"{name}: sent in both the body and the header {header}; send it once"
            )
        found[name] = headers[header]
    return found


def _body_fields(row: Mapping[str, object], headers: Mapping[str, str]) -> dict[str, object]:
    # A form with a field `data` has an unknown field.
    coding = headers.get("content-encoding", "").strip().lower()
    if len(row) != 1 or not row.keys() & {"body", "data"}:
        if coding not in PLAIN:  # TorchServe found nothing in it, or it was not encoded
            raise UnsupportedEncoding(
                "body: a multipart form cannot have Content-Encoding; send the form uncompressed, "
                "or raw bytes or JSON with gzip"
            )
        return dict(row)
    (sent,) = row.values()
    body = _decoded_body(sent, coding)
    if "json" in headers.get("content-type", "").lower() and isinstance(body, bytes | bytearray):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise MalformedRequest("body: not valid JSON; send one JSON object") from error
    if isinstance(body, Mapping):
        fields = dict(body)
        if isinstance(fields.get("image"), str):
            fields["image"] = _base64(fields["image"])
        return fields
    if isinstance(body, bytes | bytearray):
        return {"image": body}
    raise MalformedRequest(
        f"body: expected a JSON object, got {type(body).__name__}; send "
        '{"image": ..., "roi": ..., "explain": ...}'
    )


def _decoded_body(body: object, coding: str) -> object:
    """The body without its Content-Encoding."""
    if coding in PLAIN:
        return body
    if coding not in CODINGS:
        raise UnsupportedEncoding("body: unsupported Content-Encoding; send gzip or none")
    if not isinstance(body, bytes | bytearray):
        raise MalformedRequest(_NO_GZIP)
    try:
        inflated = gunzip(body, MAX_BYTES)
    except BadGzip:
        raise MalformedRequest(_NO_GZIP) from None
    if len(inflated) > MAX_BYTES:
        raise ImageTooLarge(
            f"body: more than {MAX_BYTES} bytes when decompressed; send a smaller image"
        )
    return inflated


def _base64(text: str) -> bytes:
    """base64 as programs write it: in lines, in a data URI, URL-safe, without padding."""
    try:
        code = text.encode("ascii").translate(None, b" \t\r\n")
        if uri := re.match(rb"data:[^,]{0,256};base64,", code, re.IGNORECASE):
            code = code[uri.end() :]
        if len(code) > 4 * (MAX_DICOM_BYTES // 3 + 1):
            raise ImageTooLarge(f"image: more than {MAX_DICOM_BYTES} bytes; send a smaller file")
        if not (b"+" in code or b"/" in code):  # the two alphabets cannot be mixed
            code = code.translate(_FROM_URL_SAFE)
        if not code.endswith(b"="):
            code += b"=" * (-len(code) % 4)
        return base64.b64decode(code, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedRequest("image: not valid base64; encode the file's bytes") from error
