"""A synthetic cohort: B-mode-like images whose appearance carries the labels. No patient is in it.

What the labels look like (textbook descriptors, BI-RADS lexicon, exaggerated and overlapping):
benign lesions are oval, wider than tall, sharply bounded, with enhancement behind them; malignant
ones are irregular, taller, indistinct, with a shadow; with positive nodes the malignant lesion is
larger and has a bright halo that grows with their number. Age and molecular subtype show in no
image: a head trained on them has nothing to find.

Speckle: complex Gaussian scatterers blurred by the point spread, envelope, log compression
(Wagner et al. 1983, IEEE Trans. Sonics Ultrason. 30:156).
"""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from model_def.preprocessing import Pixels, RoI
from sonode.boxes.labelimg import write_voc
from sonode.console import progress
from sonode.files.atomic import check_new

Field = npt.NDArray[np.float64]

WIDTH, HEIGHT = 360, 300
DEVICES = (("Phantom A", 1.0, 46.0), ("Phantom B", 1.35, 52.0))  # name, blur factor, range in dB
SUBTYPES = {"luminal": 0.6, "HER2": 0.2, "triple-negative": 0.2}  # shares of malignant lesions


class Lesion(NamedTuple):
    """How one lesion looks; lengths in pixels, echo levels in dB."""

    half_width: float
    half_height: float
    irregularity: float
    margin_blur: float
    posterior_db: float
    halo_db: float
    halo_width: float


def _draw_lesion(rng: np.random.Generator, malignant: bool, n_nodes: int) -> Lesion:
    """A lesion's appearance given its labels; the two classes overlap."""
    half_width = rng.uniform(34, 58) + (rng.uniform(0, 12) if n_nodes else 0)
    if malignant:
        aspect = rng.normal(0.98, 0.14)
        irregularity = abs(rng.normal(0.17, 0.06))
        margin_blur = abs(rng.normal(3.2, 1.2))
        posterior_db = rng.normal(-6, 3)
    else:
        aspect = rng.normal(0.72, 0.12)
        irregularity = abs(rng.normal(0.05, 0.03))
        margin_blur = abs(rng.normal(1.3, 0.7))
        posterior_db = rng.normal(3, 2.5)
    halo_db = max(0.0, rng.normal(5 + 0.7 * n_nodes, 2) if n_nodes else rng.normal(0.5, 1))
    return Lesion(
        half_width=half_width,
        half_height=half_width * float(np.clip(aspect, 0.45, 1.4)),
        irregularity=irregularity,
        margin_blur=margin_blur,
        posterior_db=posterior_db,
        halo_db=halo_db,
        halo_width=rng.uniform(6, 10) + (rng.uniform(2, 6) if n_nodes else 0),
    )


def _outline(rng: np.random.Generator, irregularity: float, angle: Field) -> Field:
    """Radius of the lesion over the angle, 1 on average: a few smooth lobes and some spicules."""
    radius = np.ones_like(angle)
    for order in range(2, 9):
        amplitude = irregularity * rng.normal(0, 1) / np.sqrt(order)
        radius += amplitude * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    spicules = np.maximum(0, np.cos(rng.integers(7, 13) * angle + rng.uniform(0, 2 * np.pi))) ** 8
    return np.asarray(np.clip(radius + 1.4 * irregularity * spicules, 0.4, 1.8))


def render(rng: np.random.Generator, lesion: Lesion, device: int) -> tuple[Pixels, RoI]:
    """One view of the lesion: uint8 (HEIGHT, WIDTH) and the box around what a reader would mark."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    centre_x = WIDTH / 2 + rng.uniform(-45, 45)
    centre_y = HEIGHT * 0.46 + rng.uniform(-18, 18)
    dx, dy = (x - centre_x) / lesion.half_width, (y - centre_y) / lesion.half_height
    distance = np.hypot(dx, dy) / _outline(rng, lesion.irregularity, np.arctan2(dy, dx))
    scale = min(lesion.half_width, lesion.half_height)
    inside = expit((1 - distance) * scale / lesion.margin_blur)

    # Echo level of the tissue in dB: skin, fat, gland with slow texture, decay over depth.
    level = gaussian_filter(rng.normal(0, 1, (HEIGHT, WIDTH)), (7, 22))
    level = 2.5 * level / level.std() - 9 * y / HEIGHT
    level += 9 * np.exp(-((y - 8) ** 2) / 60) - 5 * np.exp(-((y - 42) ** 2) / 700)
    off_rim = (distance - 1) * scale / lesion.halo_width
    level += lesion.halo_db * np.exp(-((off_rim - 0.7) ** 2)) * (1 - inside)
    behind = np.clip((y - centre_y) / lesion.half_height - 0.6, 0, 1) * np.exp(-((dx / 0.85) ** 4))
    level += lesion.posterior_db * behind * (1 - inside) - rng.uniform(12, 17) * inside

    _, blur, dynamic_range = DEVICES[device]
    amplitude = 10 ** (level / 20)
    scatter = rng.normal(size=(2, HEIGHT, WIDTH)) * amplitude
    point_spread = (0.9 * blur, 1.7 * blur)
    real, imaginary = (gaussian_filter(part, point_spread) for part in scatter)
    envelope = np.hypot(real, imaginary)
    decibel = 20 * np.log10(envelope / np.quantile(envelope, 0.995) + 1e-6)
    pixels = np.clip(255 * (decibel / dynamic_range + 1), 0, 255).astype(np.uint8)

    rows, columns = np.nonzero(distance < 1 + 0.6 * lesion.halo_width / scale)
    slack = rng.integers(0, 5, size=4)  # a reader's hand is not exact
    roi = RoI(
        max(0, int(columns.min() - slack[0])),
        max(0, int(rows.min() - slack[1])),
        min(WIDTH, int(columns.max() + 1 + slack[2])),
        min(HEIGHT, int(rows.max() + 1 + slack[3])),
    )
    return pixels, roi


def _draw_person(rng: np.random.Generator, malignant: bool) -> tuple[int, str | None]:
    """Age in whole years and, of a malignant lesion, its molecular subtype."""
    age = int(np.clip(rng.normal(56 if malignant else 46, 13), 18, 91))
    subtype = str(rng.choice(list(SUBTYPES), p=list(SUBTYPES.values())))
    return age, subtype if malignant else None


def _write_patient(out: Path, seed: int, patient: int) -> list[dict[str, object]]:
    """Images and boxes of one patient; its rows of `labels.csv`, one a view."""
    rng = np.random.default_rng([seed, patient])
    malignant = bool(rng.random() < 0.6)
    n_nodes = int(min(rng.geometric(0.3), 12)) if malignant and rng.random() < 0.45 else 0
    lesion = _draw_lesion(rng, malignant, n_nodes)
    device = int(rng.integers(len(DEVICES)))
    # A generator of their own: the images are the same bytes with and without these.
    age, subtype = _draw_person(np.random.default_rng([seed, patient, 1]), malignant)
    rows: list[dict[str, object]] = []
    # Phantoms of other seeds are other patients, as an external cohort must have.
    name = f"phantom_{patient:04d}" if seed == 0 else f"phantom_{seed}_{patient:04d}"
    for view in range(int(rng.integers(2, 5))):
        pixels, roi = render(rng, lesion, device)
        stem = f"{name}_{view}"
        Image.fromarray(pixels).save(out / "images" / f"{stem}.png")
        write_voc(out / "annotations" / f"{stem}.xml", f"{stem}.png", WIDTH, HEIGHT, roi)
        rows.append(
            {
                "image": f"{stem}.png",
                "patient_id": name,
                "lesion_id": f"{name}_a",
                "malignant": int(malignant),
                "alnm": int(n_nodes > 0),
                "n_nodes": n_nodes,
                "device": DEVICES[device][0],
                "age": age,
                "subtype": subtype,
            }
        )
    return rows


def write_phantom(out: Path, n_patients: int, seed: int) -> None:
    """Write `images/`, LabelImg boxes in `annotations/` and `labels.csv` for `n_patients`.

    Each patient has one lesion in two to four views. The same seed gives the same bytes, and a
    larger cohort begins with the patients of a smaller one.

    Raises UserError: `out` already holds something.
    """
    check_new(out, in_place=True)
    (out / "images").mkdir(parents=True)
    (out / "annotations").mkdir()
    with ThreadPoolExecutor(joblib.cpu_count()) as pool:
        drawn = pool.map(lambda patient: _write_patient(out, seed, patient), range(n_patients))
        drawn = progress(drawn, total=n_patients, what="phantom patients")
        rows = [row for rows in drawn for row in rows]
    with (out / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
