import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from train.cohorts.similar import near_duplicates
from train.cohorts.similar.near_duplicates import (
    SIDE,
    Pair,
    groups,
    hashes,
    most_similar,
    similar_pairs,
    stack,
    standardised,
    thumbnail,
)


def frame(seed: int, height: int = 300, width: int = 400) -> np.ndarray:
    """Soft shades, as tissue has them: pictures of two seeds are far from alike."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 12)
    return np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)


def stored_again(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_similarity_is_the_correlation_of_thumbnails() -> None:
    one, other = thumbnail(frame(0)), thumbnail(frame(1))
    assert len(one) == SIDE * SIDE
    vectors = standardised(stack([one, other]))
    expected = np.corrcoef(*(np.frombuffer(it, np.uint8) for it in (one, other)))[0, 1]
    assert vectors[0] @ vectors[1] == pytest.approx(expected, abs=1e-5)
    assert vectors[0] @ vectors[0] == pytest.approx(1, abs=1e-5)


def test_what_is_stored_again_is_found_and_nothing_else() -> None:
    first = frame(0)
    height, width = first.shape
    marked = first.copy()
    marked[20:24, 40:90] = marked[10:60, 60:63] = 255
    frames = [
        frame(1),
        first,
        stored_again(first, 30),
        np.asarray(Image.fromarray(first).resize((width // 2, height // 2))),
        marked,
        (255 * (first / 255) ** 0.8).astype(np.uint8),  # another grey curve
        frame(2),
    ]
    thumbnails = stack(thumbnail(it) for it in frames)
    pairs = similar_pairs(thumbnails, [str(number) for number in range(len(frames))])
    assert {(pair.first, pair.second) for pair in pairs} == {
        (i, j) for i in range(1, 6) for j in range(i + 1, 6)
    }
    assert [pair.similarity for pair in pairs] == sorted(it.similarity for it in pairs)[::-1]
    of_one = similar_pairs(thumbnails, ["a", "b", "b", "b", "b", "b", "c"])
    assert of_one == []


def test_all_pairs_as_by_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    # Pairs on both sides of the limit, in products of a few images each.
    monkeypatch.setattr(near_duplicates, "BLOCK", 7)
    rng = np.random.default_rng(0)
    frames = [frame(seed) for seed in range(12)]
    for strength in np.linspace(0, 45, 24):
        noise = gaussian_filter(rng.normal(size=frames[0].shape), 6)
        again = frames[int(rng.integers(12))] + strength * noise / noise.std()
        frames.append(np.clip(again, 0, 255).astype(np.uint8))
    thumbnails = stack(thumbnail(it) for it in frames)
    correlation = np.corrcoef(thumbnails.reshape(len(thumbnails), -1).astype(float))
    i, j = np.nonzero(np.triu(correlation, 1) >= near_duplicates.SIMILAR)
    assert len(i) > 5
    assert (np.abs(correlation - near_duplicates.SIMILAR) < 0.03).any()
    found = similar_pairs(thumbnails, [str(number) for number in range(len(frames))])
    assert {(pair.first, pair.second) for pair in found} == set(zip(i, j, strict=True))


def test_flat_images_are_similar_to_none() -> None:
    flat = np.full((3, SIDE, SIDE), 70, np.uint8)
    assert similar_pairs(flat, ["a", "b", "c"]) == []
    assert similar_pairs(flat[:0], []) == []


def test_groups_by_hand() -> None:
    pairs = [Pair(3, 4, 1.0), Pair(1, 4, 1.0), Pair(0, 5, 1.0)]
    assert groups(6, pairs) == [0, 1, 2, 1, 1, 0]


def test_hashes_estimate_the_correlation() -> None:
    first = frame(0)
    frames = [first, stored_again(first, 30), frame(1)]
    thumbnails = stack(thumbnail(it) for it in frames)
    correlation = np.corrcoef(thumbnails.reshape(3, -1).astype(float))
    hashed = hashes(thumbnails)
    assert hashed.shape == (3, 256)
    assert most_similar(hashed[:1], hashed[1:2])[0] == pytest.approx(correlation[0, 1], abs=0.02)
    assert most_similar(hashed[:1], hashed[2:])[0] == pytest.approx(correlation[0, 2], abs=0.1)
    assert most_similar(hashed[:2], hashed[:0]).tolist() == [-1, -1]


def test_hashes_stay_what_they_were() -> None:
    # Written down once: those in a checkpoint are compared with what later versions make.
    pattern = (np.arange(SIDE * SIDE) * 37 % 251).astype(np.uint8).reshape(1, SIDE, SIDE)
    assert hashes(pattern)[0, :6].tolist() == [71, 74, 48, 150, 128, 44]
