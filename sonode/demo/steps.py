"""`sonode demo`: the whole road on this machine, through the commands that a user would type."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sonode.console import say, table
from sonode.demo.account import BUCKET, MODEL, NAME, VERSION, Account, sonode
from sonode.demo.online import post, upload
from sonode.files.atomic import check_new

PATIENTS = 240  # of the phantom
SPLIT_SEED = 305  # of 1000 the one whose parts of that phantom are most alike (training names it)
PASSES = 9000  # images seen in training on a given cohort
TOLERANCE = 1e-5  # online and batch: float32 sums differ in order with the size of a batch


def run(out_folder: str, cohort_folder: str | None, seed: int) -> None:
    """Run every step and print the closing table; no process outlives it.

    Raises:
        UserError: OUT is not empty, the cohort has faults, or a step failed.
        SystemExit: code 1, where all ran but a check found something.
    """
    from archives.torchserve.java import find_java
    from archives.torchserve.node import TorchServeNode
    from sonode.demo.local_s3 import LocalS3, find_weed

    out = Path(out_folder).resolve()
    check_new(out, in_place=True)
    find_java()  # before minutes of training, not after
    find_weed()
    started = time.monotonic()
    account = Account(out)
    cohort = _cohort(account, out, cohort_folder, seed)
    _train(account, out, cohort, seed, given=cohort_folder is not None)
    _pack(account, out)

    account.begin("A real S3 server (SeaweedFS) on loopback, filled with the study images")
    keys = {"access_key": "demo-access", "secret_key": os.urandom(16).hex()}
    with LocalS3(out / "s3", bucket=BUCKET, **keys) as server:
        server.take_over()
        manifest = upload(account, out, cohort)
        account.begin("TorchServe with that archive, token authorisation on")
        with TorchServeNode(out / "store", {NAME: MODEL}, out / "serve") as node:
            say(f"{node.inference_url} answers, model {NAME} ready")
            online = post(account, out, node, manifest)
        account.begin("The nightly batch: the same archive over the manifest, s3:// to s3://")
        results = _score(account, out)
    account.begin("Online and batch compared")
    _compare(account, online, results)

    account.add("all of it", "", f"{time.monotonic() - started:.0f} s")
    say()
    table("What was made", ("what", "where", "figures"), account.rows)
    say(f"paths are below {out_folder}; objects of s3:// are in {out_folder}/s3/data")
    for finding in account.findings:
        say(f"FINDING: {finding}")
    (out / "summary.json").write_text(
        json.dumps({"made": account.rows, "findings": account.findings}, indent=2) + "\n"
    )
    if account.findings:
        sys.exit(1)


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Seconds of the block, appended to the list when it ends."""
    seconds: list[float] = []
    started = time.monotonic()
    yield seconds
    seconds.append(time.monotonic() - started)


def _cohort(account: Account, out: Path, given: str | None, seed: int) -> Any:
    from train.cohorts.cohort import load_cohort

    if given is None:
        account.begin("A synthetic cohort (phantom): speckle images that depend on their labels")
        out.mkdir(parents=True, exist_ok=True)  # here: a fault of OUT is one line, not a step's
        options = ("--patients", str(PATIENTS), "--seed", str(seed))
        sonode("phantom", out / "cohort", *options)
        cohort = load_cohort(out / "cohort")
    else:
        account.begin("The given cohort")
        cohort = load_cohort(Path(given))
        out.mkdir(parents=True, exist_ok=True)
    figure = f"{cohort.patients}, {len(cohort.table)} lesion boxes"
    say(f"{cohort.name}: {figure}" + (" (synthetic, no patient in it)" if cohort.synthetic else ""))
    account.add("cohort", cohort.folder, figure)
    return cohort


def _train(account: Account, out: Path, cohort: Any, seed: int, *, given: bool) -> None:
    from train.cohorts.split import part_of

    account.begin("Training: ResNet18, split by patient, the paper's loss")
    config = Path(__file__).parents[2] / "train" / "configs" / "demo.yaml"
    common = ["--config", config, "--data.cohort", cohort.folder, "--out", out / "training"]
    common += ["--seed_everything", str(seed)]
    if given:
        n_train = sum(part_of(patient, 0) == "train" for patient in cohort.table["patient_id"])
        common += ["--trainer.max_epochs", str(max(2, min(30, round(PASSES / max(1, n_train)))))]
    else:
        common += ["--data.split_seed", str(SPLIT_SEED)]
    with _timed() as seconds:
        sonode("train", "fit", *common)
    sonode("train", "test", *common)
    aucs = json.loads((out / "training" / "test.json").read_text())
    account.add("checkpoint", out / "training" / "checkpoint", f"trained in {seconds[0]:.0f} s")
    for it in aucs:
        figure = "undefined" if it["auc"] is None else f"{it['auc']:.3f}"
        account.add("test AUC", f"{it['head']}, {it['on']}", f"{figure} ({it['n_images']} images)")


def _pack(account: Account, out: Path) -> None:
    from archives.packing.members import file_sha256

    account.begin("The archive, packed twice and verified")
    for store in ("store", "store-again"):
        sonode(
            *("pack", out / "training/checkpoint", "--name", NAME, "--version", VERSION),
            *("--store", out / store),
        )
    digests = {file_sha256(out / store / MODEL) for store in ("store", "store-again")}
    say("both have the same SHA-256" if len(digests) == 1 else "the two differ")
    if len(digests) != 1:
        account.findings.append("the archive was not the same when built again")
    sonode("inspect", out / "store" / MODEL, "--verify")
    account.add("archive", out / "store" / MODEL, f"sha256 {digests.pop()[:16]}…, built twice")


def _score(account: Account, out: Path) -> Any:
    """Run the batch job from s3:// to s3:// and read its rows back."""
    import pandas as pd

    from batch import layout
    from batch.results.schema import read
    from batch.storage import objects

    place = f"s3://{BUCKET}/scores"
    sonode(
        *("score", f"s3://{BUCKET}/manifests/demo.parquet", place),
        *("--archive", f"s3://{BUCKET}/models/{MODEL}"),
        allowed=(1,),  # the broken rows must be reported
    )
    (record,) = (
        uri
        for uri in objects.list_files(f"{place}/{layout.RUNS}", deep=True)
        if uri.endswith("/run.json")
    )
    summary = json.loads(objects.read(record).data)
    results = read(place).to_pandas()
    results.to_parquet(out / "scores.parquet", index=False)
    failed = results[results["status"] == "failed"]
    table(
        "Rows that failed",
        ("study", "stage", "code", "message"),
        failed[["study_id", "stage", "code", "message"]].astype(str).values.tolist(),
    )
    speed = f"{summary['images_per_second']:.0f} images/s"
    account.add("batch scores", f"{place} -> scores.parquet", f"{len(results)} rows")
    account.add("", "", f"{speed}, {len(failed)} failed with a code")
    if sorted(failed["study_id"]) != ["broken-0", "broken-1", "broken-2"]:
        account.findings.append("rows other than the three broken ones failed")
    manifest_rows = len(pd.read_parquet(out / "manifest.parquet"))
    if len(results) != manifest_rows or results["study_id"].duplicated().any():
        account.findings.append(f"{len(results)} result rows for {manifest_rows} manifest rows")
    return results


def _compare(account: Account, online: dict[str, Any], results: Any) -> None:
    """The same images must have the same probabilities both ways."""
    batch = results.set_index("study_id")
    largest = max(
        abs(score["probability"] - batch.loc[study, f"{head}_probability"])
        for study, heads in online.items()
        for head, score in heads.items()
    )
    say(f"largest difference of a probability over {len(online)} images: {largest:.2g}")
    account.add("online = batch", f"{len(online)} images", f"largest difference {largest:.1g}")
    if not largest <= TOLERANCE:
        account.findings.append(f"online and batch differ by {largest:.2g} (> {TOLERANCE:g})")
