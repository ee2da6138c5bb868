"""Pack a checkpoint and this repository's serving code into one archive, always the same bytes."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from archives.packing import evidence as evidence_of
from archives.packing import model_card
from archives.packing.golden_images import golden_images
from archives.packing.loader import load_archive, load_folder
from archives.packing.members import MANIFEST, NAME, NAME_RULE, ArchiveError, file_sha256
from sonode.console import UserError
from sonode.files.atomic import beside, scratch, sync
from sonode.files.settings import read_settings

CODE = Path(__file__).parents[2]  # holds `handlers` and `model_def`
OUTLIERS = "outliers.safetensors"  # where the card has a limit; the service asks for it then
REFERENCE = {"engine": "eager", "fallback": ()}  # float32, which the others are held against


def pack(
    checkpoint: Path,
    name: str,
    version: str,
    store: Path,
    evidence: Sequence[Path] = (),
    statement: Path | None = None,
) -> Path:
    """Build `store/name-version.mar` and prove that it loads; complete or not at all.

    `evidence`: the OUT of evaluations and external validations, and `statement` the author's text,
    for the model card.

    Returns the archive's path; an equal archive that is already there is left as it is.

    Raises:
        UserError: a bad name, no checkpoint, evidence of another one, or another archive of that
            name and version.
        ArchiveError: the checkpoint does not load, or the archiver fails.
    """
    for option, value in (("--name", name), ("--version", version)):
        if not NAME.fullmatch(value):
            raise UserError(f"{option} {value!r}: {NAME_RULE}")
    for needed in ("model.json", "weights.safetensors"):
        if not (checkpoint / needed).is_file():
            raise UserError(
                f"CHECKPOINT {checkpoint}: has no {needed}; give the `checkpoint` folder that "
                "`sonode train fit` wrote"
            )
    page, tested_on = _model_card(checkpoint, name, version, evidence, statement)
    store.mkdir(parents=True, exist_ok=True)
    target = store / f"{name}-{version}.mar"
    with scratch("sonode-pack-") as work:
        _stage(checkpoint, work / "stage")
        (work / "stage" / model_card.FILE).write_text(page, encoding="utf-8")
        (work / "stage" / evidence_of.FILE).write_text(tested_on, encoding="utf-8")
        unpacked = _archive(name, version, work)
        with beside(target) as part:
            _prove_and_zip(unpacked, part)
            with load_archive(part, REFERENCE):
                pass  # it imports, reproduces its golden examples, and is in canonical form
            sync(part)
            _place(part, target, version)
            sync(store)
    return target


def _model_card(
    checkpoint: Path, name: str, version: str, evidence: Sequence[Path], statement: Path | None
) -> tuple[str, str]:
    """The page, and what it was tested on as JSON."""
    try:
        card = json.loads((checkpoint / "model.json").read_bytes())
        measured = evidence_of.read_all(evidence, card)
        text = model_card.Statement()
        if statement is not None:
            remedy = f"give any of {', '.join(model_card.ASKED)}, each a text"
            text = read_settings(statement, model_card.Statement, "--statement", remedy)
        tested_on = json.dumps(evidence_of.tested_on(card, measured), indent=2) + "\n"
        return model_card.model_card(name, version, card, measured, text), tested_on
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveError(
            "CHECKPOINT: its model.json, or an evaluation, lacks what a model card needs "
            f"({type(error).__name__}: {error}); train or evaluate it again"
        ) from error


def _place(part: Path, target: Path, version: str) -> None:
    """Give the archive its name, unless another one has it."""
    if not target.exists():
        try:
            target.hardlink_to(part)  # fails where somebody was first; a rename would not
            return
        except FileExistsError:
            pass
        except OSError:  # no hard links here (exFAT, SMB)
            part.replace(target)
            return
    if file_sha256(target) != file_sha256(part):
        raise UserError(
            f"--version {version}: {target} exists with other content; give a new version"
        )


def _stage(checkpoint: Path, stage: Path) -> None:
    """Lay out what the archiver copies to the archive's root, the service aside."""
    for package in ("handlers", "model_def"):
        skip = shutil.ignore_patterns("__pycache__", "service.py")
        shutil.copytree(CODE / package, stage / package, ignore=skip)
    for file in ("model.json", "weights.safetensors"):
        shutil.copyfile(checkpoint / file, stage / file)
    if (checkpoint / OUTLIERS).exists():
        shutil.copyfile(checkpoint / OUTLIERS, stage / OUTLIERS)
    golden = stage / "golden"
    golden.mkdir()
    for image in golden_images():
        (golden / image.name).write_bytes(image.png)


def _archive(name: str, version: str, work: Path) -> Path:
    """Run torch-model-archiver on what is staged; returns the archive as a folder."""
    (work / "tmp").mkdir()
    (work / "export").mkdir()
    # -P: a folder of the user's that is named like a module must not stand in for it.
    command = [sys.executable, "-P", "-m", "model_archiver.model_packaging"]
    command += ["--model-name", name, "--version", version, "--runtime", "python"]
    command += ["--handler", str(CODE / "handlers" / "service.py")]
    command += ["--config-file", str(Path(__file__).parent / "model-config.yaml")]
    # By names in `work`: a path with a comma would be taken for two.
    command += ["--extra-files", "stage", "--archive-format", "no-archive"]
    command += ["--export-path", "export"]
    # The archiver stages in, and first deletes, a folder of the model's name in the temp folder:
    # a private temp folder keeps it from deleting somebody else's.
    environment = {**os.environ, "TMPDIR": str(work / "tmp")}
    done = subprocess.run(
        command, cwd=work, capture_output=True, text=True, env=environment, check=False
    )
    unpacked = work / "export" / name
    if done.returncode or not (unpacked / MANIFEST).is_file():
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise ArchiveError(f"torch-model-archiver failed: {lines[-1]}")
    manifest = json.loads((unpacked / MANIFEST).read_text())
    del manifest["createdOn"]  # the same inputs give the same bytes
    (unpacked / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return unpacked


def _prove_and_zip(unpacked: Path, target: Path) -> None:
    """Record what the golden images give, and zip; both by the archive's own code."""
    with load_folder(unpacked, REFERENCE, being_packed=True) as loaded:
        golden, integrity = map(importlib.import_module, ("handlers.golden", "handlers.integrity"))
        images = golden_images()
        rows = [{"image": image.png, "roi": list(image.roi)} for image in images]
        outcomes = loaded.score(rows)
        for image, outcome in zip(images, outcomes, strict=True):
            if outcome.status != 200:
                raise ArchiveError(
                    f"CHECKPOINT: it cannot score {image.name} ({outcome.body['message']}); "
                    "train it again"
                )
        examples = [
            {
                "image": image.name,
                "roi": list(image.roi),
                "probabilities": {
                    head: _rounded(value)
                    for head, value in golden.recorded(outcome.body["heads"]).items()
                },
            }
            for image, outcome in zip(images, outcomes, strict=True)
        ]
        (unpacked / "golden" / "golden.json").write_text(json.dumps(examples, indent=2) + "\n")
        with target.open("wb") as file:
            integrity.write_canonical_zip(unpacked, file)


def _rounded(value: float | dict[str, float]) -> float | dict[str, float]:
    """Other processors differ in the last digits, and verifying allows 1e-3."""
    if isinstance(value, dict):
        return {label: round(probability, 5) for label, probability in value.items()}
    return round(value, 5)
