"""/metrics, as TorchServe has it: the names, kinds and labels of archives/torchserve/metrics.yaml.

prometheus_client would rename counters that do not end in `_total`, which dashboards ask for.
"""

from __future__ import annotations

import logging
import socket
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import yaml

DECLARED = Path(__file__).parents[1] / "torchserve" / "metrics.yaml"
# Of Prometheus's Java client, so TorchServe's.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

logger = logging.getLogger("sonode.server")


class Declared(NamedTuple):
    """A metric of the file."""

    kind: str
    unit: str
    labels: tuple[str, ...]


class Metrics:
    """Counters, gauges and histograms of one server."""

    def __init__(self) -> None:
        self._declared: dict[str, Declared] = {}
        file = yaml.safe_load(DECLARED.read_text())
        for group in ("ts_metrics", "model_metrics"):
            for kind, metrics in file[group].items():
                for it in metrics:
                    labels = tuple(it["dimensions"])
                    if group == "model_metrics":
                        labels += ("Hostname",)
                    self._declared[it["name"]] = Declared(kind, it["unit"], labels)
        self.of_models = [
            it["name"] for metrics in file["model_metrics"].values() for it in metrics
        ]
        self._host = socket.gethostname()
        self._values: dict[str, dict[tuple[str, ...], float]] = {it: {} for it in self._declared}
        self._buckets: dict[str, dict[tuple[str, ...], list[int]]] = {}

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add to a counter or histogram, or set a gauge; the host's name is added to the labels."""
        key = (*labels, self._host)
        kind = self._declared[name].kind
        values = self._values[name]
        values[key] = value if kind == "gauge" else values.get(key, 0) + value
        if kind == "histogram":
            counts = self._buckets.setdefault(name, {}).setdefault(key, [0] * (len(BUCKETS) + 1))
            counts[bisect_left(BUCKETS, value)] += 1

    def update(self, updates: Iterable[tuple[str, float, list[str]]]) -> None:
        """Take what a worker has sent, but what another version of sonode labels differently."""
        for name, value, labels in updates:
            if len(labels) + 1 == len(self._declared[name].labels):
                self.add(name, value, *labels)
            else:
                logger.warning("%s has other labels in this archive: left out", name)

    def text(self) -> str:
        """Prometheus's text format."""
        lines = []
        for name, (kind, unit, names) in self._declared.items():
            lines.append(f"# HELP {name} Unit: {unit}")
            lines.append(f"# TYPE {name} {kind}")
            for key, value in self._values[name].items():
                pairs = zip(names, key, strict=True)
                labels = ",".join(f'{label}="{it.translate(ESCAPED)}"' for label, it in pairs)
                if kind != "histogram":
                    lines.append(f"{name}{{{labels}}} {float(value)!r}")
                    continue
                total = 0
                bounds = [*map(repr, BUCKETS), "+Inf"]
                for bound, count in zip(bounds, self._buckets[name][key], strict=True):
                    total += count
                    lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
                lines.append(f"{name}_count{{{labels}}} {total}")
                lines.append(f"{name}_sum{{{labels}}} {float(value)!r}")
        return "\n".join(lines) + "\n"
