"""Broken requests without end: `python -m tests.handlers.fuzz --cases 100000 --seed 1`.

Each case is a seed file (images, DICOMs, JSON bodies) with a few faults put in, sent in one of the
three forms. It must be parsed and prepared, or refused with a known code; nothing may be raised,
take long, or repeat what the file says about a patient. The network is left out.
"""

import argparse
import base64
import binascii
import io
import json
import logging
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, PngImagePlugin

from handlers import errors, requests
from handlers.images.prepare import prepare
from model_def.preprocessing import Preprocessing
from tests.handlers import dicoms

MAX_SECONDS = 5.0  # CPU time of one case of a few hundred bytes; milliseconds are usual
HEADS = ["malignancy", "alnm"]
FACTS = Preprocessing(size=32)
ALLOWED = {
    (kind.code, kind.status)
    for kind in errors.RowError.__subclasses__()
    if kind.status in (400, 413, 415, 422)
}
TOKENS = [b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80"]
JSON_TOKENS = [
    b"NaN",
    b"-1e999",
    b"9" * 5000,
    b"[" * 3000,
    b"{}",
    b'"',
    b"null",
    b"\xff",
    b"\\u0000",
]


class LeakError(AssertionError):
    """A message or a log repeats what identifies a patient."""


def seeds() -> dict[str, bytes]:
    """Small files of every kind that is taken, with names in their metadata."""
    grey, colour = Image.fromarray(dicoms.GREY), Image.fromarray(dicoms.COLOUR)
    deep = Image.fromarray(dicoms.GREY.astype(np.uint16) * 257)
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", dicoms.SECRETS[0])
    text.add_text("Comment", dicoms.SECRETS[1] * 9, zip=True)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, dicoms.SECRETS[0]
    files = dict(dicoms.all_kinds())

    def add(name: str, image: Image.Image, kind: str, **options: object) -> None:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[name] = buffer.getvalue()

    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        add(f"png {mode}", colour.convert(mode), "PNG", pnginfo=text, exif=exif)
    add("png 16", deep, "PNG")
    for mode in ("L", "RGB", "CMYK"):
        add(f"jpeg {mode}", colour.convert(mode), "JPEG", exif=exif)
        for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
            add(f"tiff {mode} {how}", colour.convert(mode), "TIFF", compression=how, exif=exif)
    add("tiff 16", deep, "TIFF", description=dicoms.SECRETS[0])
    for mode in ("1", "L", "P", "RGB"):
        add(f"bmp {mode}", colour.convert(mode), "BMP")
    add("webp", colour, "WEBP", exif=exif)
    add("webp lossless", grey, "WEBP", lossless=True)
    more = {"save_all": True, "append_images": [colour]}
    add("several", grey, "TIFF", **more)
    add("animated", grey, "WEBP", **more)
    add("apng", grey, "PNG", **more)
    return files


def broken(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """`data` with one to four faults."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(made) + 1)
        # Headers are where decisions are made.
        at = min(at, rng.choice((64, 700, len(made))))
        fault = rng.randrange(7)
        if fault == 0 and at < len(made):
            made[at] = rng.randrange(256)
        elif fault == 1 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif fault == 2:
            token = rng.choice(TOKENS)
            made[at : at + 4] = token
        elif fault == 3:
            made[at:at] = rng.randbytes(rng.randint(1, 8))
        elif fault == 4:
            del made[at : at + rng.randint(1, 40)]
        elif fault == 5 and rng.random() < 0.3:
            del made[at:]
        elif fault == 6 and rng.random() < 0.3:
            other = rng.choice(others)
            cut = rng.randrange(len(other))
            made[at:] = other[cut:]
    return bytes(made)


def with_sound_sums(png: bytes) -> bytes:
    """A PNG with the checksums that its chunks should have, so that faults come further in."""
    made, at = bytearray(png), 8
    while at + 12 <= len(made):
        (length,) = struct.unpack_from(">I", made, at)
        end = at + 8 + length
        if end + 4 > len(made):
            break
        struct.pack_into(">I", made, end, binascii.crc32(made[at + 4 : end]))
        at = end + 4
    return bytes(made)


def row_of(
    image: bytes, others: list[bytes], rng: random.Random, *, several: bool
) -> tuple[dict[str, object], dict[str, object]]:
    """A row and its headers, in one of the three forms; `several`: the image has frames."""
    roi: object = rng.choice([None, "0,0,8,8", "2,3,15,11", [2, 3, 15, 11]])
    frame: object = rng.choice(["0", 2, None] if several else [None, None, None, "0", 1])
    explain: object = rng.choice([None, "gradcam", "gradcam:alnm"])
    # Wrong fields are refused before the image is looked at: most rows have sound ones.
    spoiled = rng.randrange(40)
    if spoiled == 0:
        roi = rng.choice(["nan,0,1,1", "0,0,inf,1", "9" * 10_000, [0, 0, 10**400, 5], {}])
    elif spoiled == 1:
        frame = rng.choice([-1, "x", 10**30, b"\xff", [0], 1.5, True])
    elif spoiled == 2:
        explain = rng.choice(
            [
                b"\xfe",
                7,
                "x" * 300,
                "+",
                {"method": []},
                {"heads": {}},
                {"method": "gradcam", "heads": [[1]]},
            ]
        )
    study = dicoms.SECRETS[1]
    form = rng.choice((0, 0, 1, 1, 2, 3))
    if form == 0:
        headers: dict[str, object] = {
            "X-Roi": ",".join(map(str, roi)) if isinstance(roi, list) else roi,
            "x-frame": str(frame) if isinstance(frame, int) else frame,
            "X-EXPLAIN": explain,
            "describe": "True",
            "Content-Type": rng.choice(["image/png", 5, None, b"json", "application/dicom"]),
        }
        return {rng.choice(("body", "data")): bytearray(image)}, headers
    fields = {"image": image, "roi": roi, "frame": frame, "explain": explain, "study_id": study}
    fields = {name: value for name, value in fields.items() if value is not None}
    if form == 1:
        return fields, {"describe": "True"}
    body = {**fields, "image": base64.b64encode(image).decode()}
    if form == 2:
        return {"body": body}, {"Content-Type": "application/json"}
    text = json.dumps({name: v for name, v in body.items() if not isinstance(v, bytes)}).encode()
    at = rng.randrange(len(text))
    if rng.random() < 0.5:
        text = text[:at] + rng.choice(JSON_TOKENS) + text[at + rng.randrange(9) :]
    else:
        text = broken(text, others, rng)
    return {"body": text}, {"Content-Type": "application/json"}


def attempt(row: dict[str, object], headers: dict[str, object]) -> str:
    """Parse and prepare a row: "prepared", or the code of a refusal that is in order."""
    try:
        request = requests.parse(row, headers, HEADS)  # type: ignore[arg-type]
        prepared = prepare(request, FACTS)
    except errors.RowError as error:
        message = str(error)
        assert (error.code, error.status) in ALLOWED, error.code
        assert error.field, message
        assert len(message) < 2000
        if any(secret in message for secret in dicoms.SECRETS):
            raise LeakError(error.code) from None
        return error.code
    assert prepared.input_SS.shape == (FACTS.size, FACTS.size)
    assert prepared.input_SS.dtype == np.uint8
    return "prepared"


@contextmanager
def watched_logs() -> Iterator[None]:
    """Every logger at its most talkative; a name in a record is a `LeakError`."""
    records: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    keep, root = Keep(), logging.getLogger()
    level = root.level
    root.addHandler(keep)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(keep)
        root.setLevel(level)
    if any(secret in record for record in records for secret in dicoms.SECRETS):
        raise LeakError("a log record")


def run(
    cases: int, seed: int, *, seconds: float = float("inf"), progress: bool = False
) -> Counter[str]:
    """Counts of outcomes of up to `cases` cases; a failing one is raised with its number."""
    files = seeds()
    names, others = list(files), list(files.values())
    counts: Counter[str] = Counter()
    begin = time.monotonic()
    with watched_logs():
        for number in range(cases):
            if time.monotonic() - begin > seconds:
                break
            rng = random.Random(f"{seed}/{number}")  # each case can be repeated alone
            name = rng.choice(names)
            data = files[name] if rng.random() < 0.1 else broken(files[name], others, rng)
            if name.startswith("png") and rng.random() < 0.7:
                data = with_sound_sums(data)
            row, headers = row_of(data, others, rng, several="loop" in name)
            start = time.process_time()
            try:
                outcome = attempt(row, headers)
                taken = time.process_time() - start
                assert taken < MAX_SECONDS, f"{taken:.1f} s"
            except Exception as error:
                error.add_note(f"case {number} of seed {seed}, from {name!r}")
                raise
            counts[outcome] += 1
            if progress and number % 1000 == 999:
                rate = (number + 1) / (time.monotonic() - begin)
                print(f"{number + 1} cases, {rate:.0f}/s, {dict(counts)}", flush=True)
    return counts


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    counts = run(asked.cases, asked.seed, seconds=asked.seconds, progress=True)
    print(f"{sum(counts.values())} cases, none raised: {dict(counts)}", file=sys.stderr)


if __name__ == "__main__":
    main()
