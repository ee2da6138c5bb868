"""Each guard's verdicts of a rollout, with the counts behind them, on one page.

Passed steps are counted again from the gateway's logs, up to the entry that ended them; what the
journal has of the judgement itself stands beside it. Clients go by their names and studies by their
hashes, as the logs have them.
"""

from __future__ import annotations

import html
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from archives.gateway import logs
from archives.gateway.logs import LogRow, Logs, seq
from archives.judging.guards import Watch
from archives.judging.journal_facts import JUDGED, kind_of, last_facts, rollouts
from archives.judging.step_log import watch_of
from archives.judging.verdicts import Verdict
from archives.state.journal import Entry, Journal, fold
from sonode.console import UserError, counted
from sonode.files.atomic import new_folder
from sonode.page import page, table

MOST = 200
"""Failing studies that the page shows of a step; explain.json has all."""
NOTE = (
    '<p class="note">The tables by client and study count all requests of a step that a version '
    "got: in a canary, those of the old version with a study; in the shadow, the mirrored ones. "
    "Failed: a try ended with a 5xx. The guards count less, so their numbers can be smaller: a "
    "study's first seconds only (study_s), a burst of failures once, no refusal for load, no "
    "failure that both versions have, and a client that gave up only after a long wait.</p>"
)
Json = dict[str, Any]


def write(state: Path, out: Path) -> Path:
    """Write explain.html and explain.json of the last rollout into `out`; returns the page's path.

    Raises UserError where no rollout was started here, or `out` is in use.
    """
    with new_folder(out) as folder:
        found = explain(state)
        (folder / "explain.json").write_text(json.dumps(found, indent=1) + "\n")
        (folder / "explain.html").write_text(render(found))
    return out / "explain.html"


def explain(state: Path) -> Json:
    """Count each judged step of the last rollout. Raises UserError where there was none."""
    entries = Journal(state).entries()
    facts = last_facts(entries)
    if facts is None:
        raise UserError(f"--state {state}: has no rollout; check the folder")
    mine = rollouts(entries)[-1]
    begun = [it for it in mine if "step" in it.facts]
    steps = []
    for step, end in zip(begun, [*begun[1:], None], strict=True):
        name = str(step.facts["step"])
        kind = kind_of(fold(entries[: step.seq]))
        # `keep` answers for `default` and `drain`, too.
        if kind and (name.startswith(JUDGED) or end is None or end.event == "rollback"):
            steps.append(_step(state, entries, step, end))
    return {
        "rollout": facts.rollout,
        "model": facts.model,
        "old": facts.old.version if facts.old else None,
        "new": facts.new.version,
        "steps": steps,
        "journal": [
            {"time": it.time, "event": it.facts.get("step") or it.event, "detail": _detail(it)}
            for it in mine
        ],
    }


def _detail(entry: Entry) -> str:
    names = ("guard", "said", "why", "reason", "not_done")
    return ": ".join(str(entry.facts[name]) for name in names if entry.facts.get(name))


def _step(state: Path, entries: list[Entry], step: Entry, end: Entry | None) -> Json:
    facts = last_facts(entries[: end.seq - 1] if end else entries)
    kind = kind_of(fold(entries[: step.seq]))
    assert facts and kind
    later = (it.seq for it in entries[step.seq :])
    until = next((it for it in later if fold(entries[:it]).split == it), math.inf)
    watch = watch_of(entries, facts, kind, step)
    requests: list[LogRow] = []
    attempts: list[LogRow] = []
    for is_attempt, row in Logs(state, watch.since).rows():
        if seq(row) >= until:
            continue
        (watch.add_attempt if is_attempt else watch.add_request)(row)
        if seq(row) >= watch.since:
            (attempts if is_attempt else requests).append(row)
    verdicts = [asdict(it) for it in watch.verdicts()]
    recorded = end.facts if end else {}
    fields_now = {it.name for it in fields(Verdict)}  # an older version's journal has others
    of_then = [it for it in recorded.get("verdicts", ()) if it.keys() == fields_now]
    return {
        "step": step.facts["step"],
        "under_way": end is None,
        "ended": _detail(end) if end else None,
        "answered": watch.answered,
        "studies": watch.studies,
        "guards": of_then or verdicts,
        "recounted": not of_then,
        "judged_then": recorded.get("judged"),
        **_counts(kind, watch, requests, attempts),
    }


def _counts(kind: str, watch: Watch, requests: list[LogRow], attempts: list[LogRow]) -> Json:
    """By client and version, and the studies that failed; `other`: what the other version did."""
    tried = [row for row in requests if logs.was_tried(row)]
    if kind == "shadow":
        news = [row for row in attempts if row["version"] == watch.new and row["arm"] == "shadow"]
        old_of = {row["id"]: row for row in tried if row["version"] == watch.old}
        new_of = {row["id"]: row for row in news}
        counted = [(row, old_of.get(row["id"])) for row in news]
        counted += [(row, new_of[id_]) for id_, row in old_of.items() if id_ in new_of]
        answers = [(row, str(other["status"]) if other else "") for row, other in counted]
    else:
        versions = (watch.new, watch.old) if kind == "canary" else (watch.new,)
        answers = [
            (row, str(row.get("replay") or ""))
            for row in tried
            if row["version"] in versions and (row["study"] or row["version"] == watch.new)
        ]
    clients: dict[tuple[str, str], Counter[str]] = {}
    studies: dict[tuple[str, str], set[str]] = {}
    failing: dict[tuple[str, str, str], Json] = {}
    for row, other in answers:
        client, version, study = str(row.get("client") or ""), str(row["version"]), row["study"]
        failed = logs.failed_tries(row) > 0 or row["status"] >= 500
        load, left = logs.is_load(row), row["status"] == 499
        count = clients.setdefault((client, version), Counter())
        count += Counter(requests=1, failed=failed and not load, load=load, given_up=left)
        studies.setdefault((client, version), set()).add(study)
        if (failed or left) and not load:
            it = failing.setdefault(
                (study, client, version),
                {"failed": 0, "statuses": Counter(), "replayed": 0, "other": Counter()},
            )
            it["failed"] += 1
            it["statuses"][str(row["status"])] += 1
            it["replayed"] += bool(other)
            if other:
                it["other"][other] += 1
    return {
        "clients": [
            {"client": client, "version": version, "studies": len(studies[client, version] - {""})}
            | {name: count[name] for name in ("requests", "failed", "load", "given_up")}
            for (client, version), count in sorted(clients.items())
        ],
        "failing": [
            {"study": study, "client": client, "version": version, **it}
            for (study, client, version), it in sorted(failing.items())
        ],
    }


def render(found: Json) -> str:
    """Lay it out; see `explain`."""
    body = [] if found["steps"] else ["<p>No step was judged by guards.</p>"]
    for step in found["steps"]:
        body += _section(step)
    body += [NOTE] if found["steps"] else []
    journal = [(it["event"], it["detail"]) for it in found["journal"]]
    body += ["<h2>Journal</h2>", _text(("entry", "why"), journal)]
    return page(f"{found['model']}: {found['old'] or 'nothing'} to {found['new']}, explained", body)


def _section(step: Json) -> list[str]:
    now = "in progress" if step["under_way"] else f"ended: {step['ended']}"
    source = "Counted again from the logs." if step["recounted"] else "As recorded in the journal."
    body = [
        f"<h2>{html.escape(step['step'])}</h2>",
        f"<p>{html.escape(now)}. {counted(step['answered'], 'request')} answered with a score, "
        f"{counted(step['studies'], 'study', 'studies')} judged. {source}</p>",
        _text(
            ("guard", "state", "value", "limit", "n", "evidence", "message"),
            [
                (it["guard"], it["state"], "" if it["value"] is None else f"{it['value']:.4f}",
                 f"{it['limit']:.4f}", str(it["n"]), f"{it['evidence']:.0%}", it["detail"])
                for it in step["guards"]
            ],
        ),
    ]  # fmt: skip
    if then := step["judged_then"]:
        body += [
            "<p>What the guards reported at the time:</p>",
            _text(("",), [(it,) for it in then]),
        ]
    body += ["<h3>By client</h3>", _text(
        ("client", "version", "requests", "studies", "failed", "load", "given up"),
        [
            (it["client"] or "-", it["version"],
             *(str(it[name]) for name in ("requests", "studies", "failed", "load", "given_up")))
            for it in step["clients"]
        ],
    )]  # fmt: skip
    failing = step["failing"]
    if failing:
        body += [f"<h3>Studies that failed: {len(failing)}</h3>", _text(
            ("study", "client", "version", "failed", "status", "sent to the other", "status there"),
            [
                (it["study"] or "none named", it["client"] or "-", it["version"],
                 str(it["failed"]), _each(it["statuses"]), str(it["replayed"]), _each(it["other"]))
                for it in failing[:MOST]
            ],
        )]  # fmt: skip
    if len(failing) > MOST:
        body += [f"<p>The first {MOST} are shown; explain.json has all.</p>"]
    return body


def _each(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} x {key}" for key, count in sorted(counts.items()))


def _text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(head, rows, text=True)
