import base64
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers import requests
from handlers.errors import (
    ImageTooLarge,
    InvalidRoI,
    MalformedRequest,
    MissingImage,
    RowError,
    UnsupportedEncoding,
)
from handlers.requests import Explain, ScoringRequest
from model_def.limits import MAX_BYTES
from model_def.preprocessing import RoI

HEADS = ["malignancy", "alnm"]
EXPECTED = ScoringRequest(b"png", RoI(1, 2, 30, 40), Explain("gradcam", ("alnm",)), frame=7)
JSON_FIELDS = {
    "image": base64.b64encode(b"png").decode(),
    "roi": [1, 2, 30, 40],
    "explain": "gradcam:alnm",
    "frame": 7,
}


@pytest.mark.parametrize(
    ("row", "headers"),
    [
        (
            {"body": bytearray(b"png")},
            {"X-Roi": "1,2,30,40", "X-Explain": "gradcam:alnm", "X-Frame": "7"},
        ),
        (
            {"data": b"png"},
            {"x-roi": " [1, 2, 30, 40] ", "x-explain": "gradcam: alnm", "x-frame": " 07"},
        ),
        ({"image": b"png", "roi": b"1,2,30,40", "explain": b"gradcam:alnm", "frame": b"7"}, {}),
        ({"image": b"png", "roi": "1.0,2,30,40", "explain": "gradcam:alnm", "frame": "7"}, {}),
        ({"body": JSON_FIELDS}, {}),
        ({"body": {**JSON_FIELDS, "study_id": "s", "frame": "7"}}, {}),
        (
            {"body": json.dumps(JSON_FIELDS).encode()},
            {"Content-Type": "application/json; charset=utf-8"},
        ),
        ({"body": json.dumps(JSON_FIELDS).encode()}, {"Content-Type": "Application/JSON"}),
    ],
)
def test_every_form_means_the_same(row: dict[str, object], headers: dict[str, str]) -> None:
    assert requests.parse(row, headers, HEADS) == EXPECTED


CODE = base64.b64encode(b"\xfb\xef\xbe\xff\xfeabc").decode()  # ++++//5hYmM=


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        CODE.rstrip("="),
        CODE.replace("+", "-").replace("/", "_"),
        CODE.replace("+", "-").replace("/", "_").rstrip("="),
        f"data:image/png;base64,{CODE}",
        f"DATA:image/png;charset=utf-8;BASE64,{CODE}\n",
        "\r\n".join(CODE[at : at + 4] for at in range(0, len(CODE), 4)) + "\r\n",
        f" {CODE[:6]}\n\t{CODE[6:]} \n",
    ],
)
def test_base64_as_programs_write_it(text: str) -> None:
    parsed = requests.parse({"body": {"image": text}}, {}, HEADS)
    assert parsed.image == b"\xfb\xef\xbe\xff\xfeabc"


@pytest.mark.parametrize(
    "text",
    [
        f"-{CODE[1:]}",  # both alphabets
        "YQ=",
        "YQ==YQ==",
        "YWJjY",
        "data:image/png,abc",
        "data:image/png;base64;YQ==",
        "YQ==\0",
        "ä" * 4,
    ],
)
def test_base64_that_contradicts_itself(text: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        requests.parse({"body": {"image": text}}, {}, HEADS)
    assert caught.value.field == "image"


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", " GZIP "])
def test_a_gzipped_body_means_the_same(coding: str) -> None:
    header = {"Content-Encoding": coding}
    body = gzip.compress(json.dumps(JSON_FIELDS).encode())
    as_json = {"content-type": "application/json", **header}
    assert requests.parse({"body": bytearray(body)}, as_json, HEADS) == EXPECTED
    members = gzip.compress(b"p") + gzip.compress(b"ng")
    assert requests.parse({"data": members}, header, HEADS).image == b"png"
    assert requests.parse({"body": b"png"}, {"content-encoding": "identity"}, HEADS).image == b"png"


@pytest.mark.parametrize("row", [{}, {"image": b"png", "roi": b"1,2,30,40"}])
def test_a_form_with_a_content_encoding_is_refused(row: dict[str, object]) -> None:
    with pytest.raises(UnsupportedEncoding):
        requests.parse(row, {"Content-Encoding": "gzip"}, HEADS)


@pytest.mark.parametrize(
    ("body", "coding", "error"),
    [
        (gzip.compress(b"png", mtime=0)[:-1], "gzip", MalformedRequest),
        (gzip.compress(b"png", mtime=0)[:-8] + bytes(8), "gzip", MalformedRequest),  # its checksum
        (b"png", "gzip", MalformedRequest),
        (JSON_FIELDS, "gzip", MalformedRequest),  # TorchServe could read it: it was not encoded
        (gzip.compress(bytes(MAX_BYTES + 1), mtime=0), "gzip", ImageTooLarge),
        (b"png", "br", UnsupportedEncoding),
        (b"png", "gzip, gzip", UnsupportedEncoding),
    ],
)
def test_a_body_that_is_not_decoded(body: object, coding: str, error: type[RowError]) -> None:
    with pytest.raises(error) as caught:
        requests.parse({"body": body}, {"Content-Encoding": coding}, HEADS)
    assert caught.value.field == "body"


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"image": b"x", "roi": b"1,2,3,4"}, "roi"),
        ({"body": JSON_FIELDS}, "roi"),
        ({"image": b"x", "explain": b"gradcam"}, "explain"),
        ({"image": b"x", "frame": b"0"}, "frame"),
    ],
)
def test_a_header_beside_a_form_or_json_counts_and_never_overrules(
    row: dict[str, object], field: str
) -> None:
    header = {"X-Roi": "1,2,30,40"}
    assert requests.parse({"image": b"x"}, header, HEADS).roi == EXPECTED.roi
    assert requests.parse({"body": {"image": "eA=="}}, header, HEADS).roi == EXPECTED.roi
    with pytest.raises(MalformedRequest) as caught:
        requests.parse(row, {f"x-{field}": "1,2,3,4"}, HEADS)
    assert caught.value.field == field


@pytest.mark.parametrize("name", ["data", "body"])
def test_a_form_that_names_its_image_otherwise_does_not_lose_its_roi(name: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        requests.parse({name: b"png", "roi": b"1,2,30,40"}, {}, HEADS)
    assert caught.value.field == "body"


@pytest.mark.parametrize("roi", ["+1, 2. ,30.00, 40", ["1", "2.0", 30.0, 40]])
def test_whole_numbers_may_be_written_in_several_ways(roi: object) -> None:
    body = {"image": JSON_FIELDS["image"], "roi": roi}
    assert requests.parse({"body": body}, {}, HEADS).roi == RoI(1, 2, 30, 40)


def test_roi_and_explain_may_be_left_out() -> None:
    assert requests.parse({"image": b"x"}, {}, HEADS) == ScoringRequest(b"x", None, None)


def test_the_explanations_endpoint_asks_for_all_heads_unless_the_row_says_otherwise() -> None:
    headers = {"explain": "True"}
    asked = requests.parse({"image": b"x"}, headers, HEADS).explain
    assert asked == Explain("gradcam", ("malignancy", "alnm"))
    named = requests.parse({"image": b"x", "explain": b"gradcam:alnm"}, headers, HEADS).explain
    assert named == Explain("gradcam", ("alnm",))


@pytest.mark.parametrize(
    ("row", "error", "field"),
    [
        ({}, MissingImage, "image"),
        ({"body": b""}, MissingImage, "image"),
        ({"body": {}}, MissingImage, "image"),
        ({"body": [1]}, MalformedRequest, "body"),
        ({"body": {"image": "no base64!"}}, MalformedRequest, "image"),
        ({"body": {"image": 5}}, MissingImage, "image"),
        ({"image": b"x", "pacient": b"1"}, MalformedRequest, "body"),
        ({"image": b"x", "roi": b"1,2,3"}, MalformedRequest, "roi"),
        ({"image": b"x", "roi": b"a,2,3,4"}, MalformedRequest, "roi"),
        ({"image": b"x", "roi": b"\xff"}, MalformedRequest, "roi"),
        ({"image": b"x", "roi": "1," * 10**6}, MalformedRequest, "roi"),
        ({"image": b"x", "roi": b"nan,2,3,4"}, InvalidRoI, "roi"),
        ({"image": b"x", "roi": b"0,0,inf,4"}, InvalidRoI, "roi"),
        ({"image": b"x", "roi": b"0.5,0,3,4"}, InvalidRoI, "roi"),
        ({"image": b"x", "roi": b"1_0,0,2_0,20"}, InvalidRoI, "roi"),
        ({"image": b"x", "roi": "\u0661,0,3,4"}, InvalidRoI, "roi"),
        ({"image": b"x", "roi": b"1e1,0,20,20"}, InvalidRoI, "roi"),
        ({"body": {**JSON_FIELDS, "roi": ["1_0", 0, 20, 20]}}, InvalidRoI, "roi"),
        ({"body": {**JSON_FIELDS, "roi": [10**400, 0, 1, 1]}}, MalformedRequest, "roi"),
        ({"body": {**JSON_FIELDS, "roi": [True, 0, 1, 1]}}, InvalidRoI, "roi"),
        ({"body": {**JSON_FIELDS, "roi": [None, 0, 1, 1]}}, MalformedRequest, "roi"),
        ({"body": {**JSON_FIELDS, "roi": {"x": 1}}}, MalformedRequest, "roi"),
        ({"image": b"x", "frame": b"-1"}, MalformedRequest, "frame"),
        ({"image": b"x", "frame": b"1.0"}, MalformedRequest, "frame"),
        ({"image": b"x", "frame": b"9" * 200}, MalformedRequest, "frame"),
        ({"image": b"x", "frame": "\u0661"}, MalformedRequest, "frame"),
        ({"body": {**JSON_FIELDS, "frame": True}}, MalformedRequest, "frame"),
        ({"body": {**JSON_FIELDS, "frame": 10**400}}, MalformedRequest, "frame"),
        ({"body": {**JSON_FIELDS, "frame": 1.5}}, MalformedRequest, "frame"),
        ({"body": {**JSON_FIELDS, "frame": [1]}}, MalformedRequest, "frame"),
        ({"image": b"x", "explain": b"magic"}, MalformedRequest, "explain"),
        ({"image": b"x", "explain": b"gradcam:liver"}, MalformedRequest, "explain"),
        ({"image": b"x", "explain": b"gradcam:"}, MalformedRequest, "explain"),
        ({"image": b"x", "explain": b"gradcam+all"}, MalformedRequest, "explain"),
        ({"image": b"x", "explain": b"+grid"}, MalformedRequest, "explain"),
        ({"body": {**JSON_FIELDS, "explain": {}}}, MalformedRequest, "explain"),
        (
            {"body": {**JSON_FIELDS, "explain": {"method": ["gradcam"]}}},
            MalformedRequest,
            "explain",
        ),
        (
            {"body": {**JSON_FIELDS, "explain": {"method": "gradcam", "heads": "alnm"}}},
            MalformedRequest,
            "explain",
        ),
        (
            {"body": {**JSON_FIELDS, "explain": {"method": "gradcam", "heads": []}}},
            MalformedRequest,
            "explain",
        ),
        (
            {"body": {**JSON_FIELDS, "explain": {"method": "gradcam", "grid": "yes"}}},
            MalformedRequest,
            "explain",
        ),
    ],
)
def test_mistakes_are_named(row: dict[str, object], error: type[RowError], field: str) -> None:
    with pytest.raises(error) as caught:
        requests.parse(row, {}, HEADS)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("occlusion", {"method": "occlusion"}),
        ("occlusion + grid", {"method": "occlusion", "grid": True}),
        (
            "gradcam:alnm,malignancy+grid+full_frame",
            {
                "method": "gradcam",
                "heads": ["alnm", "malignancy"],
                "grid": True,
                "full_frame": True,
            },
        ),
        ("gradcam:alnm,alnm", {"method": "gradcam", "heads": ["alnm"], "full_frame": False}),
    ],
)
def test_an_explanation_may_be_asked_for_by_text_or_by_an_object(
    text: str, fields: dict[str, object]
) -> None:
    asked = [
        requests.parse({"body": {**JSON_FIELDS, "explain": explain}}, {}, HEADS).explain
        for explain in (text, fields)
    ]
    assert asked[0] == asked[1]
    assert asked[0] is not None
    assert (asked[0].method, asked[0].grid) == (fields["method"], fields.get("grid", False))
    assert asked[0].full_frame == fields.get("full_frame", False)
    assert list(asked[0].heads) == fields.get("heads", HEADS)


def test_json_that_is_none() -> None:
    for body in (b"{", b"[" * 10**5, b'{"roi": ' + b"9" * 10**5 + b"}"):
        with pytest.raises(RowError):
            requests.parse({"body": body}, {"content-type": "application/json"}, HEADS)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
fields = st.dictionaries(st.sampled_from([*requests.FIELDS, "body", "data", "x"]), values)


@settings(deadline=None)
@given(row=fields | st.builds(lambda body: {"body": body}, fields))
def test_any_row_is_parsed_or_refused_with_a_coded_error(row: dict[str, object]) -> None:
    try:
        request = requests.parse(row, {}, HEADS)
    except RowError as error:
        assert error.code in ("malformed_request", "missing_image", "invalid_roi")
    else:
        assert request.image
