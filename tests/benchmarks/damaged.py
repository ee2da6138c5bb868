"""Which share of damaged JPEGs is refused: `python -m tests.benchmarks.damaged FOLDER_OF_IMAGES`.

Every 120th image (no masks), as baseline, progressive, 4:2:0 and with restart markers; each kind
of damage at four random places of its data.
"""

from __future__ import annotations

import io
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from model_def.images import jpeg_checks

KINDS = (
    ("L", {}),
    ("L", {"progressive": True}),
    ("L", {"restart_marker_blocks": 8}),
    ("L", {"optimize": True}),
    ("RGB", {"subsampling": 2}),
    ("RGB", {"subsampling": 0, "progressive": True}),
)
END = b"\xff\xd9"


def zeroed(data: bytes, at: int, count: int) -> bytes:
    return data[:at] + bytes(count) + data[at + count :]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes, int], bytes]] = {
    "cut and closed": lambda data, at: data[:at] + END,
    "4,096 bytes zeroed": lambda data, at: zeroed(data, at, 4096),
    "2,000 bytes left out": lambda data, at: data[:at] + data[at + 2000 :],
    "512 bytes zeroed": lambda data, at: zeroed(data, at, 512),
    "64 bytes left out": lambda data, at: data[:at] + data[at + 64 :],
    "16 bytes zeroed": lambda data, at: zeroed(data, at, 16),
    "a bit flipped": flipped,
}


def main(folder: Path) -> None:
    paths = sorted(path for path in folder.rglob("*.png") if "_mask" not in path.name)[::120]
    chance = random.Random(1)
    refused: Counter[str] = Counter()
    total = 0
    for path in paths:
        with Image.open(path) as image:
            grey = image.convert("L")
        for mode, options in KINDS:
            buffer = io.BytesIO()
            grey.convert(mode).save(buffer, "JPEG", quality=85, **options)
            data = buffer.getvalue()
            jpeg_checks.check(data)  # a sound one passes
            begin = data.index(b"\xff\xda") + 14
            for _ in range(4):
                total += 1
                at = chance.randrange(begin, len(data) - 4096 - 2)
                for name, damage in DAMAGE.items():
                    try:
                        jpeg_checks.check(damage(data, at))
                    except jpeg_checks.Damaged:
                        refused[name] += 1
    for name in DAMAGE:
        print(f"{name}: {refused[name]} of {total} refused, {refused[name] / total:.0%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
