"""`sonode demo`: the whole road on this machine, through the commands that a user would type."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sonode.atomic_files import check_new
from sonode.console import UserError, run_sonode, say, table
from sonode.parquet_files import ROI_COLUMNS

NAME, VERSION = "breast_us", "1.0"
MODEL = f"{NAME}-{VERSION}.mar"
BUCKET = "studies"
N_ONLINE = 24  # images posted one by one, a third in each of the three forms
PATIENTS = 240  # of the phantom
SPLIT_SEED = 305  # of 1000 the one whose parts of that phantom are most alike (training names it)
PASSES = 9000  # images seen in training on a given cohort
TOLERANCE = 1e-5  # online and batch: float32 sums differ in order with the size of a batch


@dataclass
class Account:
    """What the closing table says."""

    out: Path
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    step: int = 0

    def begin(self, title: str) -> None:
        """Announce the next step."""
        self.step += 1
        say(f"\n== {self.step}. {title}")

    def add(self, what: str, where: Path | str, figure: str) -> None:
        """Add a line to the closing table; what lies in OUT is named from there."""
        if isinstance(where, Path) and where.is_relative_to(self.out):
            where = where.relative_to(self.out)
        self.rows.append((what, str(where), figure))


def run(out_folder: str, cohort_folder: str | None, seed: int) -> None:
    """Run every step and print the closing table; no process outlives it.

    Raises:
        UserError: OUT is not empty, the cohort has faults, or a step failed.
        SystemExit: code 1, where all ran but a check found something.
    """
    from archives.torchserve.java import find_java
    from archives.torchserve.node import TorchServeNode
    from sonode.local_s3 import LocalS3, find_weed

    out = Path(out_folder).resolve()
    check_new(out)
    find_java()  # before minutes of training, not after
    find_weed()
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    account = Account(out)
    cohort = _cohort(account, out, cohort_folder, seed)
    _train(account, out, cohort, seed, given=cohort_folder is not None)
    _pack(account, out)

    account.begin("A real S3 server (SeaweedFS) on loopback, filled with the study images")
    keys = {"access_key": "demo-access", "secret_key": os.urandom(16).hex()}
    with LocalS3(out / "s3", bucket=BUCKET, **keys) as server:
        server.take_over()
        manifest = _upload(account, out, cohort)
        account.begin("TorchServe with that archive, token authorisation on")
        with TorchServeNode(out / "store", {NAME: MODEL}, out / "serve") as node:
            say(f"{node.inference_url} answers, model {NAME} ready")
            online = _post(account, out, node, manifest)
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


def _sonode(*arguments: str | Path, allowed: tuple[int, ...] = (0,)) -> int:
    """Run a command of sonode as a user would, shown before it runs."""
    say("$ " + shlex.join(["sonode", *map(str, arguments)]))
    code = run_sonode([*map(str, arguments)])
    if code not in allowed:
        raise UserError(f"sonode {arguments[0]}: exit code {code}; see its message above")
    return code


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
        options = ("--patients", str(PATIENTS), "--seed", str(seed))
        _sonode("phantom", out / "cohort", *options)
        cohort = load_cohort(out / "cohort")
    else:
        account.begin("The given cohort")
        cohort = load_cohort(Path(given))
    figure = f"{cohort.patients}, {len(cohort.table)} lesion boxes"
    say(f"{cohort.name}: {figure}" + (" (synthetic, no patient in it)" if cohort.synthetic else ""))
    account.add("cohort", cohort.folder, figure)
    return cohort


def _train(account: Account, out: Path, cohort: Any, seed: int, *, given: bool) -> None:
    from train.cohorts.split import part_of

    account.begin("Training: ResNet18, split by patient, the paper's loss")
    config = Path(__file__).parents[1] / "train" / "configs" / "demo.yaml"
    common = ["--config", config, "--data.cohort", cohort.folder, "--out", out / "training"]
    common += ["--seed_everything", str(seed)]
    if given:
        n_train = sum(part_of(patient, 0) == "train" for patient in cohort.table["patient_id"])
        common += ["--trainer.max_epochs", str(max(2, min(30, round(PASSES / max(1, n_train)))))]
    else:
        common += ["--data.split_seed", str(SPLIT_SEED)]
    with _timed() as seconds:
        _sonode("train", "fit", *common)
    _sonode("train", "test", *common)
    aucs = json.loads((out / "training" / "test.json").read_text())
    account.add("checkpoint", out / "training" / "checkpoint", f"trained in {seconds[0]:.0f} s")
    for it in aucs:
        figure = "undefined" if it["auc"] is None else f"{it['auc']:.3f}"
        account.add("test AUC", f"{it['head']}, {it['on']}", f"{figure} ({it['n_images']} images)")


def _pack(account: Account, out: Path) -> None:
    from archives.packing.loader import file_sha256

    account.begin("The archive, packed twice and verified")
    for store in ("store", "store-again"):
        _sonode(
            *("pack", out / "training/checkpoint", "--name", NAME, "--version", VERSION),
            *("--store", out / store),
        )
    digests = {file_sha256(out / store / MODEL) for store in ("store", "store-again")}
    say("both have the same SHA-256" if len(digests) == 1 else "the two differ")
    if len(digests) != 1:
        account.findings.append("the archive was not the same when built again")
    _sonode("inspect", out / "store" / MODEL, "--verify")
    account.add("archive", out / "store" / MODEL, f"sha256 {digests.pop()[:16]}…, built twice")


def _upload(account: Account, out: Path, cohort: Any) -> Any:
    """Images, archive and manifest into S3; three rows are broken on purpose.

    Returns:
        The manifest as a data frame, with the local path of each image in its index.
    """
    import pandas as pd

    from batch.storage import objects

    rows: list[dict[str, Any]] = []
    uris: dict[Path, str] = {}
    for index in range(len(cohort.table)):
        path = cohort.image_path(index)
        if path not in uris:
            uris[path] = f"s3://{BUCKET}/images/{len(uris):05d}{path.suffix.lower()}"
            objects.write(uris[path], path.read_bytes())
        roi = dict(zip(ROI_COLUMNS, cohort.roi(index), strict=True))
        rows.append({"image_uri": uris[path], **roi, "study_id": f"study-{index:05d}"})
    whole = dict(rows[0])
    data = cohort.image_path(0).read_bytes()
    objects.write(f"s3://{BUCKET}/images/cut-short.png", data[: len(data) // 2])
    broken = [
        {**whole, "image_uri": f"s3://{BUCKET}/images/no-such-object.png"},
        {**whole, "image_uri": f"s3://{BUCKET}/images/cut-short.png"},
        {**whole, "roi_x_max": 100_000},
    ]
    for number, row in enumerate(broken):
        rows.append({**row, "study_id": f"broken-{number}"})
    manifest = pd.DataFrame(rows)
    local = out / "manifest.parquet"
    manifest.to_parquet(local, index=False)
    objects.write(f"s3://{BUCKET}/manifests/demo.parquet", local.read_bytes())
    objects.write(f"s3://{BUCKET}/models/{MODEL}", (out / "store" / MODEL).read_bytes())
    say(f"{len(uris)} images, the archive and a manifest of {len(rows)} rows, 3 of them broken:")
    say("  a missing object, a truncated image, a RoI outside its frame")
    account.add("manifest", f"s3://{BUCKET}/manifests/demo.parquet", f"{len(rows)} rows")
    manifest["path"] = [
        *(cohort.image_path(index) for index in range(len(cohort.table))),
        *[None] * len(broken),
    ]
    return manifest


def _post(account: Account, out: Path, node: Any, manifest: Any) -> dict[str, Any]:
    """Post images in the three forms, then ask for one explanation.

    Returns:
        The heads' results by study id.
    """
    import base64

    import httpx

    whole = manifest[manifest["path"].notna()]
    chosen = whole.iloc[:: max(1, len(whole) // N_ONLINE)].head(N_ONLINE)
    online: dict[str, Any] = {}
    milliseconds = []
    (out / "online").mkdir()
    with httpx.Client(timeout=60, trust_env=False) as client:
        for number, (_, row) in enumerate(chosen.iterrows()):
            data = row["path"].read_bytes()
            roi = [int(row[column]) for column in ROI_COLUMNS]
            text = ",".join(map(str, roi))
            token = {"Authorization": f"Bearer {node.token()}"}
            if number % 3 == 0:
                form = {"content": data, "headers": {**token, "X-Roi": text}}
            elif number % 3 == 1:
                form = {"files": {"image": data}, "data": {"roi": text}, "headers": token}
            else:
                body = {"image": base64.b64encode(data).decode(), "roi": roi}
                form = {"json": body, "headers": token}
            started = time.monotonic()
            answer = client.post(f"{node.inference_url}/predictions/{NAME}", **form)
            milliseconds.append(1000 * (time.monotonic() - started))
            online[row["study_id"]] = _body(answer)["heads"]
        refused = client.post(f"{node.inference_url}/predictions/{NAME}", content=b"x")
        # The one most worth a look: where the deepest head of the hierarchy is most certain.
        deepest = list(next(iter(online.values())))[-1]
        study = max(online, key=lambda study: online[study][deepest]["probability"])
        row = chosen[chosen["study_id"] == study].iloc[0]
        answer = client.post(
            f"{node.inference_url}/explanations/{NAME}",
            files={"image": row["path"].read_bytes()},
            data={"roi": ",".join(str(int(row[column])) for column in ROI_COLUMNS)},
            headers={"Authorization": f"Bearer {node.token()}"},
        )
    explained = _body(answer)
    for head, heatmap in explained["heatmaps"].items():
        path = out / "online" / f"{heatmap['method']}_{head}.png"
        path.write_bytes(base64.b64decode(heatmap["png"]))
        account.add("heat map", path, f"{head} {explained['heads'][head]['probability']:.3f}")
    median = statistics.median(milliseconds)
    say(f"{len(online)} images posted as raw bytes, multipart and JSON: median {median:.0f} ms")
    say(f"without a token: refused with {refused.status_code}")
    say(f"the answer of /explanations for {study} (pictures cut out):")
    say(json.dumps({**explained, "heatmaps": list(explained["heatmaps"])}, indent=2))
    if refused.status_code == 200:
        account.findings.append("TorchServe answered a request without a token")
    (out / "online" / "predictions.json").write_text(json.dumps(online, indent=2) + "\n")
    account.add("online scores", out / "online" / "predictions.json", f"median {median:.0f} ms")
    return online


def _body(answer: Any) -> dict[str, Any]:
    if answer.status_code != 200:
        raise UserError(f"TorchServe answered {answer.status_code}: {answer.text[:200]}")
    body: dict[str, Any] = answer.json()
    return body


def _score(account: Account, out: Path) -> Any:
    """Run the batch job from s3:// to s3:// and read its rows back."""
    import pandas as pd

    from batch import layout
    from batch.results.schema import read
    from batch.storage import objects

    place = f"s3://{BUCKET}/scores"
    _sonode(
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
