"""The study images in S3, and some of them posted to TorchServe in the three forms of a request."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from sonode.console import UserError, say
from sonode.demo.account import BUCKET, MODEL, NAME, Account
from sonode.files.parquet import ROI_COLUMNS

N_ONLINE = 24  # images posted one by one, a third in each of the three forms


def upload(account: Account, out: Path, cohort: Any) -> Any:
    """Images, archive and manifest into S3; three rows are broken on purpose.

    Returns the manifest as a data frame, with the local path of each image in its index.
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


def post(account: Account, out: Path, node: Any, manifest: Any) -> dict[str, Any]:
    """Post images in the three forms, then ask for one explanation.

    Returns the heads' results by study id.
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
