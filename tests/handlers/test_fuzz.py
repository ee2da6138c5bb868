import json

import pytest

from handlers import requests
from handlers.errors import RowError
from model_def.images.decode import decode
from tests.handlers import fuzz


def test_broken_images_dicoms_and_bodies_are_prepared_or_refused() -> None:
    counts = fuzz.run(6000, seed=20)
    assert sum(counts.values()) == 6000
    # The faults reach every stage, and not all of them are fatal.
    for code in ("prepared", "unreadable_image", "unsupported_image", "invalid_frame"):
        assert counts[code] > 200, counts


def test_intact_files_are_prepared_whatever_their_metadata_says() -> None:
    refused = {"several", "animated", "apng"}
    with fuzz.watched_logs():
        for name, data in fuzz.seeds().items():
            outcome = fuzz.attempt({"image": data, "frame": "0"}, {})
            assert outcome == ("unsupported_image" if name in refused else "prepared"), name


@pytest.mark.parametrize("token", fuzz.JSON_TOKENS)
@pytest.mark.parametrize("field", ["image", "roi", "frame", "explain", "study_id", "other"])
def test_a_hostile_value_in_any_field_of_a_body(token: bytes, field: str) -> None:
    body = b'{"image": "aWM=", ' + json.dumps(field).encode() + b": " + token + b"}"
    with pytest.raises(RowError) as caught:
        requests.parse({"body": body}, {"content-type": "application/json"}, fuzz.HEADS)
        # What may be parsed is no image.
        decode(b"ic")
    assert (caught.value.code, caught.value.status) in fuzz.ALLOWED


def test_a_leak_would_be_found(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(fuzz.LeakError), fuzz.watched_logs():
        fuzz.logging.getLogger("anywhere").debug("tag: %s", fuzz.dicoms.SECRETS[0])
