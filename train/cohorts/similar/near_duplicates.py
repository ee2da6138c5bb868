"""Images that are nearly the same: the same frame, or the next one, stored again as another file.

Similarity is the Pearson correlation of two frames, each shrunk to `SIDE` x `SIDE` grey levels. It
holds through other encodings, sizes and grey curves, and through marks that were drawn in. It does
not see frames that were mirrored, or cropped by more than about 2 % of a side.

`SIMILAR` is by measurement, on a part of BUSI (340 images without patient ids) and one of BUS-BRA
(1,309 images of 744 patients; 855,000 pairs of different ones). Pairs above

                                    .99   .98   .97   .95   .93   .92   .90   .85
    BUSI                             14    20    24    31    35    39    51   264
    BUS-BRA, different patients       0     0     0     0     0     0     1    25

So much for frames of the ultrasound alone. Whole screens have their layout in common: with the
same BUS-BRA frames on half of a black screen beside equal text 117 pairs lie above .95, on 30 % of
it 4,481, the most similar at .981. `SAME` separates these from one picture stored twice: as JPEG of
quality 10 or more BUSI's frames keep .998, at half their size .999, with another grey curve (gamma
.7) .985.

Shapes in names: N images, S `SIDE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_def.preprocessing import Pixels

SIDE = 48
SIMILAR = 0.95
"""From here on perhaps the same lesion: one patient where a set has no ids, else reported."""
SAME = 0.99
"""From here on the same picture: a fault of two patients."""
MOST = 100_000
"""Pairs that are kept, the most similar ones: a large cohort of whole screens may have millions."""
BLOCK = 2048
"""Images that are held against as many others in one product of matrices: 16 MiB of answers."""
BITS = 2048

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class Pair(NamedTuple):
    """Two images, by their places, the first one first, and their similarity."""

    first: int
    second: int
    similarity: float


def thumbnail(pixels: Pixels) -> bytes:
    """The S * S grey levels of a frame (H, W) made small, antialiased, whatever its aspect."""
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR).tobytes()


def stack(thumbnails: Iterable[bytes]) -> Bytes:
    """Thumbnails as one array (N, S, S)."""
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, SIDE, SIDE)


def standardised(thumbnails_NSS: Bytes) -> Floats:
    """(N, S, S) as vectors (N, S * S) of mean 0 and length 1; of a flat image it is all zeros.

    The product of two such vectors is their correlation.
    """
    vectors = thumbnails_NSS.reshape(len(thumbnails_NSS), SIDE * SIDE).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    length_N = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(length_N > 0, length_N, 1)
    return vectors


def similar_pairs(thumbnails_NSS: Bytes, owners: Sequence[str]) -> list[Pair]:
    """The pairs of different owners whose similarity is `SIMILAR` or more, most similar first.

    They are all but for those beyond `MOST`.

    Nothing is missed: for vectors of length 1 the correlation is 1 - |a - b|^2 / 2, and means of
    3 x 3 pixels can only bring a and b closer. So the short vectors of such means sort out all
    pairs but a few, in products of matrices, and the full ones judge those.
    """
    coarse = _coarse(thumbnails_NSS)
    half_N = (coarse**2).sum(axis=1) / 2
    owner_N = np.unique(np.asarray(owners, dtype=str), return_inverse=True)[1]
    found: list[Pair] = []
    for start in range(0, len(coarse), BLOCK):
        for other in range(start, len(coarse), BLOCK):
            rows, columns = slice(start, start + BLOCK), slice(other, other + BLOCK)
            margin = coarse[rows] @ coarse[columns].T
            margin -= half_N[rows, None]
            margin -= half_N[columns]
            i, j = np.nonzero(margin > SIMILAR - 1 - 1e-4)  # 1e-4: sums in float32
            i, j = i + start, j + other
            chosen = (i < j) & (owner_N[i] != owner_N[j])
            found += _verified(thumbnails_NSS, i[chosen], j[chosen])
            if len(found) > 2 * MOST:
                found = _most_similar_first(found)
    return _most_similar_first(found)


def _most_similar_first(pairs: list[Pair]) -> list[Pair]:
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))[:MOST]


def _coarse(thumbnails_NSS: Bytes) -> Floats:
    """Means of 3 x 3 pixels of the standardised vectors, times 3: (N, S * S / 9)."""
    third = SIDE // 3
    parts = [
        standardised(thumbnails_NSS[start : start + BLOCK])
        .reshape(-1, third, 3, third, 3)
        .sum(axis=(2, 4))
        .reshape(-1, third * third)
        / 3
        for start in range(0, len(thumbnails_NSS), BLOCK)
    ]
    return np.concatenate([np.empty((0, third * third), np.float32), *parts])


def _verified(
    thumbnails_NSS: Bytes, i: npt.NDArray[np.intp], j: npt.NDArray[np.intp]
) -> Iterator[Pair]:
    for start in range(0, len(i), BLOCK):
        first, second = i[start : start + BLOCK], j[start : start + BLOCK]
        both = standardised(thumbnails_NSS[first]), standardised(thumbnails_NSS[second])
        similarity = np.einsum("np,np->n", *both)
        for place in np.nonzero(similarity >= SIMILAR)[0]:
            yield Pair(int(first[place]), int(second[place]), float(similarity[place]))


def groups(count: int, pairs: Sequence[Pair]) -> list[int]:
    """For each of `count` images the first image that pairs connect it with, itself if none."""
    leader = list(range(count))

    def find(image: int) -> int:
        while leader[image] != image:
            leader[image] = image = leader[leader[image]]
        return image

    for pair in pairs:
        low, high = sorted((find(pair.first), find(pair.second)))
        leader[high] = low
    return [find(image) for image in range(count)]


def hashes(thumbnails_NSS: Bytes) -> Bytes:
    """Perceptual hashes of `BITS` bits (N, BITS / 8): images are compared without their pixels.

    Each bit is the side of a random plane on which the standardised thumbnail lies; two vectors at
    an angle t differ in a share t / pi of them (Charikar 2002,
    https://doi.org/10.1145/509907.509965).
    """
    parts = [
        np.packbits(standardised(thumbnails_NSS[start : start + BLOCK]) @ _planes() > 0, axis=1)
        for start in range(0, len(thumbnails_NSS), BLOCK)
    ]
    return np.concatenate([np.empty((0, BITS // 8), np.uint8), *parts])


@cache
def _planes() -> Floats:
    # RandomState: its numbers are frozen for good, which those of `default_rng` are not.
    return np.random.RandomState(0).standard_normal((SIDE * SIDE, BITS)).astype(np.float32)


def most_similar(hashes_NB: Bytes, others_MB: Bytes) -> Floats:
    """For each of N hashes its similarity to the nearest of M others; -1 where there are none.

    Estimated from the share of equal bits; near `SIMILAR` its standard deviation is .007.
    """
    best_N = np.full(len(hashes_NB), -BITS, np.float32)
    for start in range(0, len(hashes_NB), BLOCK):
        signs = _signs(hashes_NB[start : start + BLOCK])
        for other in range(0, len(others_MB), BLOCK):
            product = signs @ _signs(others_MB[other : other + BLOCK]).T
            best = best_N[start : start + BLOCK]
            np.maximum(best, product.max(axis=1), out=best)
    differing_N = (1 - best_N / BITS) / 2
    return np.cos(np.pi * differing_N).astype(np.float32)


def _signs(hashes_NB: Bytes) -> Floats:
    return np.unpackbits(hashes_NB, axis=1).astype(np.float32) * 2 - 1
