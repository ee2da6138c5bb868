"""The alert rules, run by Prometheus's own tool: what fires, and what does not."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ALERTS = Path(__file__).parents[3] / "archives" / "torchserve" / "alerts.yaml"
METRICS = ALERTS.with_name("metrics.yaml")
MODEL = 'model_name="m", model_version="1.0", instance="a"'
OK = f'sonode_requests_total{{{MODEL}, status="200", code="ok"}}'
FAILED = f'sonode_requests_total{{{MODEL}, status="500", code="internal_error"}}'


def test_every_metric_is_one_that_a_server_has() -> None:
    declared = yaml.safe_load(METRICS.read_text())
    names = {it["name"] for group in ("ts_metrics", "model_metrics")
             for kind in declared[group].values() for it in kind}  # fmt: skip
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            used = set(re.findall(r"\b(?:sonode|ts)_\w+|\bRequests\w+", rule["expr"]))
            assert {it.removesuffix("_bucket") for it in used} <= names, rule["alert"]
            assert used or rule["expr"].startswith("up{")


@pytest.mark.parametrize(
    ("alert", "series", "fires"),
    [
        ("SonodeNodeDown", {'up{job="sonode", instance="a"}': "1 1 0x60"}, True),
        ("SonodeNodeDown", {'up{job="sonode", instance="a"}': "1x60"}, False),
        ("SonodeNodeDown", {'up{job="sonode", instance="a"}': "1x59 0"}, False),  # one scrape
        ("SonodeErrors", {OK: "0+98x60", FAILED: "0+2x60"}, True),  # 2 %
        ("SonodeErrors", {OK: "0+995x60", FAILED: "0+5x60"}, False),  # .5 %
        ("SonodeErrors", {OK: "0x60", FAILED: "0x55 1 2 2 2 2"}, False),  # a handful
        ("SonodeErrors", {OK: "0+10x60"}, False),
        ("SonodeServerErrors", {'Requests5XX{Level="Host", instance="a"}': "0+1x60"}, True),
        ("SonodeServerErrors", {'Requests5XX{Level="Host", instance="a"}': "0+0x60"}, False),
        ("SonodeWorkersRestart", {f"sonode_worker_starts_total{{{MODEL}}}": "2+1x60"}, True),
        ("SonodeWorkersRestart", {f"sonode_worker_starts_total{{{MODEL}}}": "2x30 4x30"}, False),
        *(
            (
                "SonodeQueue",
                {
                    'ts_queue_latency_microseconds{model_name="m"}': f"0+{spent}x60",
                    'ts_inference_requests_total{model_name="m"}': "0+10x60",
                },
                fires,
            )
            for spent, fires in ((20_000_000, True), (5_000_000, False))  # 2 s and .5 s each
        ),
        *(
            (
                "SonodeSlow",
                {
                    f'sonode_stage_seconds_bucket{{{MODEL}, stage="handle", le="{le}"}}': (
                        f"0+{count}x60"
                    )
                    for le, count in (("1.0", quick), ("5.0", 100), ("+Inf", 100))
                },
                fires,
            )
            for quick, fires in ((90, True), (99, False))
        ),
        *(
            (
                "SonodeWarnedImages",
                {OK: "0+10x60", f"sonode_warned_total{{{MODEL}}}": f"0+{warned}x60"},
                fires,
            )
            for warned, fires in ((3, True), (1, False))
        ),
        *(
            (
                "SonodeTwoFilesOfOneVersion",
                {
                    f'sonode_model_info{{model_name="m", model_version="1.0", instance="{node}", '
                    f'sha256="{digest}", engine="eager"}}': "1x60"
                    for node, digest in (("a", "x"), ("b", other))
                },
                fires,
            )
            for other, fires in (("y", True), ("x", False))
        ),
    ],
)
def test_an_alert_fires_when_it_should(
    tmp_path: Path, alert: str, series: dict[str, str], fires: bool
) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: as root, apt-get install prometheus")
    rules = yaml.safe_load(ALERTS.read_text())
    (rule,) = [it for group in rules["groups"] for it in group["rules"] if it["alert"] == alert]
    # What it says is for people: its labels and whether it fires are asked for.
    rule["annotations"] = {}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    told: dict[str, Any] = {"exp_labels": labels_of(rule, series)}
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": it, "values": v} for it, v in series.items()],
                "alert_rule_test": [
                    {"eval_time": "60m", "alertname": alert, "exp_alerts": [told] if fires else []}
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    command = [promtool, "test", "rules", str(tmp_path / "test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def labels_of(rule: dict[str, Any], series: dict[str, str]) -> dict[str, str]:
    """The labels of an alert: its own, and those that its expression keeps."""
    first = dict(re.findall(r'(\w+)="([^"]*)"', next(iter(series))))
    by = re.search(r"by \(([^)]*)\)", rule["expr"])
    kept = re.findall(r"\w+", by[1]) if by else list(first)
    return rule["labels"] | {it: first[it] for it in kept if it in first and it != "le"}


def test_the_rules_are_whole() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: as root, apt-get install prometheus")
    done = subprocess.run([promtool, "check", "rules", str(ALERTS)], check=False)
    assert done.returncode == 0
