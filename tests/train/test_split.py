from collections import Counter

from train.split import part_of


def test_shares_and_seeds() -> None:
    counts = Counter(part_of(f"patient-{number}", 0) for number in range(20_000))
    assert abs(counts["test"] / 20_000 - 0.30) < 0.01
    assert abs(counts["val"] / 20_000 - 0.15) < 0.01
    other = sum(part_of(f"p{n}", 0) != part_of(f"p{n}", 1) for n in range(1000))
    assert 400 < other < 700  # 1 - (0.3^2 + 0.15^2 + 0.55^2) = 0.585


def test_a_patient_stays_where_it_was() -> None:
    # Written down once: an update that moved patients would leak test images into training.
    assert [part_of(f"patient-{number}", 0) for number in range(8)] == [
        *("test", "test", "val", "test", "train", "val", "val", "train")
    ]
