"""`sonode compare`: brings the two archives, the evidence and the policy together.

As a part of the command line it may import `train`; nothing else in this folder does.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sonode.console import UserError, say
from sonode.defaults import BOOTSTRAP_DRAWS
from sonode.files.atomic import new_folder

if TYPE_CHECKING:
    import pandas as pd

    from archives.comparing.compare import Pair
    from archives.comparing.compare_policy import Policy
    from archives.comparing.process import Side
    from archives.packing.loader import Description
    from batch.manifest.read import Manifest

HEAT_MAPS = "gradcam"


def mount(app: typer.Typer) -> None:
    """Add this command to `app`."""
    app.command(rich_help_panel="Roll out")(compare)


def compare(
    archive_a: str = typer.Argument(metavar="A", help="The present .mar; path or s3:// URI."),
    archive_b: str = typer.Argument(metavar="B", help="The new .mar."),
    manifest: str = typer.Argument(
        help="As for `sonode score`; columns named like heads are labels."
    ),
    out: Path = typer.Argument(help="A new folder for report.html, compare.json and heat maps."),
    *,
    policy: Path | None = typer.Option(
        None,
        help="YAML of limits for B, for example archives/comparing/compare-policy.yaml.",
    ),
    carry: list[str] = typer.Option(
        [], help="Manifest column that identifies flips, e.g. image_uri. Default: the row's number."
    ),
    pictures: int = typer.Option(12, min=0, help="Number of flips shown with both heat maps."),
    explain: str = typer.Option(HEAT_MAPS, help="Heat map method; both archives must have it."),
    timed: int = typer.Option(96, min=0, help="Number of images to time; 0: none."),
    engine: str | None = typer.Option(
        None, help="Inference engine of both, e.g. eager. Default: as for `sonode serve`."
    ),
    seed: int = typer.Option(0, min=0, help="Seed of the bootstrap."),
    bootstrap: int = typer.Option(
        BOOTSTRAP_DRAWS, min=100, help="Bootstrap draws of patients for each interval."
    ),
    as_json: bool = typer.Option(
        False, "--json", help="Print compare.json as one line, without the flips."
    ),
) -> None:
    """Score the same images with two archives, and judge the second by a policy.

    Exit code 1 if B breaks a limit of the policy, or a limit cannot be judged.
    """
    from archives.comparing.compare_policy import read
    from batch.manifest.read import open_manifest

    limits = read(policy) if policy is not None else None
    settings: dict[str, object] = {"engine": engine} if engine else {}
    with new_folder(out) as staged, open_manifest(manifest, reserved=()) as checked:
        if not checked.rows:
            raise UserError(f"manifest {manifest}: has no row, so there is nothing to compare")
        found = _compare(
            *((archive_a, archive_b), settings, manifest, checked, staged),
            carry=list(dict.fromkeys(carry)),
            pictures=pictures,
            explain=explain,
            timed=timed,
            how={"resamples": bootstrap, "seed": seed},
            policy=limits,
        )
    from train.comparing.agreement_report import show

    if as_json:
        say(json.dumps({name: it for name, it in found.items() if name != "flips"}))
    else:
        show(found)
        say(f"report: {out / 'report.html'}")
    verdict = found["verdict"]
    raise typer.Exit(0 if verdict is None or verdict["outcome"] == "pass" else 1)


def _compare(
    uris: tuple[str, str],
    settings: dict[str, object],
    manifest_uri: str,
    manifest: Manifest,
    out: Path,
    *,
    carry: list[str],
    pictures: int,
    explain: str,
    timed: int,
    how: dict[str, int],
    policy: Policy | None,
) -> dict[str, Any]:
    """Score, measure, judge, and write all files into `out`; give the content of compare.json."""
    from archives.comparing import compare
    from archives.comparing.compare_policy import judge, outcome
    from archives.comparing.process import process_of
    from archives.comparing.speed import measure

    (table,) = manifest.tables(max(manifest.rows, 1))
    facts = compare.columns(table, carry)

    from train.comparing import agreement
    from train.measures.measure import Resampling

    work = out / ".work"  # what is left of it goes with it, whatever ends this
    work.mkdir()
    with process_of("A", uris[0]) as side_a, process_of("B", uris[1]) as side_b:
        sides: dict[str, Side] = {"a": side_a, "b": side_b}
        about = {name: side.open(settings, work) for name, side in sides.items()}
        heads, left_out = compare.common_heads(about["a"], about["b"])
        primary = _primary(about)
        try:
            truth = _truth(facts, heads, about, primary)
        except UserError as error:
            raise UserError(f"manifest {manifest_uri}: {error}") from None
        if pictures:
            compare.check_explain(explain, about)
        frames: dict[str, pd.DataFrame] = {}
        for name, side in sides.items():
            which = f"{name.upper()}: {about[name].name} {about[name].version}"
            print(which, file=sys.stderr, flush=True)  # whose progress follows
            scores = compare.score(side, manifest_uri, work / f"scores-{name}", heads)
            frames[name] = scores.assign(**truth)
        pair = compare.Pair(**frames)
        a, b = pair.scored
        images = compare.timed(table, manifest.folder, pair, timed)
        speed = measure(sides, images, how["seed"]) if images else None
        flips = compare.flips(pair, heads, facts[carry])
        shown = flips[:pictures]
        compare.heat_maps(sides, table, manifest.folder, shown, explain, work, out)
    resampling = Resampling(**how)
    found: dict[str, Any] = {
        **{name: compare.identity(it) for name, it in about.items()},
        "manifest_sha256": manifest.sha256,
        "method": {**how, "patients": "patient_id" in facts},
        "rows": {
            "manifest": manifest.rows,
            "compared": len(a),
            "failed": compare.failures(pair),
        },
        "left_out": left_out,
        "heads": agreement.compare(a, b, heads, resampling, primary),
        "drift": compare.drifts(pair),
        "inconsistency": agreement.inconsistency(a, b, resampling),
        "speed": speed,
        "flips": flips,
    }
    found["verdict"] = None
    if policy is not None:
        rules = judge(policy, found)
        found["verdict"] = {
            "policy": policy.model_dump(exclude_none=True),
            "outcome": outcome(rules),
            "rules": [asdict(rule) for rule in rules],
        }
    _write(found, pair, facts[carry], shown, explain, out)
    shutil.rmtree(work)
    return found


def _primary(about: dict[str, Description]) -> dict[str, tuple[str, str]]:
    """The set that each head is measured on besides all rows, by its parents; A's goes first."""
    from train.cohorts.labels import primary_sets

    found: dict[str, tuple[str, str]] = {}
    for it in reversed(about.values()):
        found |= primary_sets(
            {
                name: {
                    "labels": labels,
                    "target": it.targets[name],
                    "parent": it.parents[name],
                    "given": it.given[name],
                }
                for name, labels in it.heads.items()
            }
        )
    return found


def _truth(
    facts: pd.DataFrame,
    heads: dict[str, tuple[str, ...]],
    about: dict[str, Description],
    primary: dict[str, tuple[str, str]],
) -> dict[str, Any]:
    """NAME_truth of each head, the columns of the primary sets, and patient_id: the row's own where
    the manifest has none; and lesion_id where it has both, of every row.

    The column that a head was trained on counts where it is the same for both. Of a head that only
    one has, the truth is needed where another is measured on its positives.
    """
    from train.cohorts.labels import truth_in

    truth: dict[str, Any] = {}
    for name, labels in heads.items():
        targets = {it.targets[name] for it in about.values()}
        target = targets.pop() if len(targets) == 1 else name
        truth[f"{name}_truth"] = truth_in(facts, name, labels, target)
    for _, column in primary.values():
        name = column.removesuffix("_truth")
        if column not in truth:
            its = next((it for it in about.values() if name in it.heads), None)
            labels, target = (its.heads[name], its.targets[name]) if its else (("no", "yes"), name)
            truth[column] = truth_in(facts, name, labels, target)
    for name, labels in heads.items():  # parents first: where one is negative, so is its child
        parent = next((it.parents[name] for it in about.values() if it.parents[name]), None)
        labelled = truth[f"{name}_truth"].notna().any()  # as in `train.fitting.predictions`
        if len(labels) == 2 and labelled and f"{parent}_truth" in truth:
            implied = truth[f"{name}_truth"].isna() & truth[f"{parent}_truth"].eq(False)
            truth[f"{name}_truth"] = truth[f"{name}_truth"].mask(implied.fillna(False), False)
    patients = facts.index.astype(str).to_series(index=facts.index)
    ids = {it: facts[it].astype(str) for it in ("patient_id", "lesion_id") if it in facts}
    known = {it: facts[it].notna() & (own.str.strip() != "") for it, own in ids.items()}
    if "patient_id" in ids:
        patients = ids["patient_id"].where(known["patient_id"], "row " + patients)
    units: dict[str, Any] = {"patient_id": patients.to_numpy()}
    if len(ids) == 2 and known["lesion_id"].all():
        units["lesion_id"] = ids["lesion_id"].to_numpy()
    return {**units, **truth}


def _write(
    found: dict[str, Any],
    pair: Pair,
    carried: pd.DataFrame,
    shown: list[dict[str, Any]],
    explain: str,
    out: Path,
) -> None:
    from archives.comparing import compare
    from train.comparing import agreement_report

    compare.beside(pair, carried).to_parquet(out / "scores.parquet")
    text = json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False)
    (out / "compare.json").write_text(text + "\n", encoding="utf-8")
    pictures = [
        (flip, {side: (out / flip[side]["heatmap"]).read_bytes() for side in ("a", "b")})
        for flip in shown
        if "heatmap" in flip["a"]
    ]
    page = agreement_report.page(found, *pair.scored, pictures, explain)
    (out / "report.html").write_text(page, encoding="utf-8")
