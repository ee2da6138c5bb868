"""A worker process: one archive's handler, driven as TorchServe drives it.

Its working folder is the unpacked archive, whose modules come first on `sys.path`; so this file
imports none that an archive brings.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import yaml

from archives.asgi.workers import frames

MANIFEST = Path("MAR-INF/MANIFEST.json")

logger = logging.getLogger(__name__)


class Metric:
    """A metric of the handler; updates go to the server with the next message."""

    def __init__(self, name: str, updates: list[tuple[str, float, list[str]]]) -> None:
        self._name = name
        self._updates = updates

    def add_or_update(self, value: float | str, labels: Sequence[str]) -> None:
        """Add to a counter or histogram, or set a gauge."""
        self._updates.append((self._name, float(value), list(labels)))


class Context:
    """What a handler asks and tells TorchServe, for one batch."""

    def __init__(self, manifest: dict[str, Any], config: Any, facts: dict[str, Any]) -> None:
        self.manifest = manifest
        self.model_yaml_config = config or {}
        self.system_properties = {"model_dir": str(Path.cwd()), "gpu_id": facts["gpu_id"]}
        self.updates: list[tuple[str, float, list[str]]] = []
        metrics = {name: Metric(name, self.updates) for name in facts["metrics"]}
        self.metrics = SimpleNamespace(cache={"all": metrics})
        self.begin([])

    def begin(self, requests: list[dict[str, Any]]) -> None:
        """Take the next batch."""
        self._requests = requests
        self.answers: list[dict[str, Any]] = [{"status": 200, "headers": {}} for _ in requests]

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        """The headers of a request."""
        return dict(self._requests[idx]["headers"])

    def get_request_header(self, idx: int, key: str) -> str | None:
        """One of them."""
        return self.get_all_request_header(idx).get(key)

    def get_request_id(self, idx: int = 0) -> str:
        """The id that its answer has, too."""
        return str(self._requests[idx]["id"])

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """The phrase is left out: HTTP/2 has none either."""
        self.answers[idx]["status"] = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Of its body."""
        self.set_response_header(idx, "content-type", value)

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Beside the server's own."""
        self.answers[idx]["headers"][key] = value


def handler_of(module: ModuleType) -> Any:
    """The one class of an archive's entry module that has what TorchServe calls."""
    (found,) = [
        it
        for it in vars(module).values()
        if isinstance(it, type) and it.__module__ == module.__name__ and hasattr(it, "handle")
    ]
    return found()


def load(facts: dict[str, Any]) -> tuple[Any, Context]:
    """Start the handler of the archive in the working folder; raises what its code raises."""
    manifest = json.loads(MANIFEST.read_text())
    config = Path("model-config.yaml")
    context = Context(
        manifest, yaml.safe_load(config.read_text()) if config.exists() else None, facts
    )
    handler = handler_of(importlib.import_module(Path(manifest["model"]["handler"]).stem))
    handler.initialize(context)
    return handler, context


def answer(
    handler: Any, context: Context, facts: dict[str, Any], blobs: list[bytes]
) -> list[bytes]:
    """What to write for a batch: an answer to each of its requests, or why there is none."""
    left = iter(blobs)
    rows = [{name: next(left) for name in it["fields"]} for it in facts["requests"]]
    context.begin(facts["requests"])
    failed, bodies = None, []
    try:
        found = handler.handle(rows, context)
        if len(found) != len(rows):
            raise ValueError(f"{len(found)} answers to {len(rows)} requests")
        bodies = [it if isinstance(it, bytes) else json.dumps(it).encode() for it in found]
    except Exception as error:  # whatever an archive's own code may raise
        logger.exception("the handler has failed")
        out_of_memory = isinstance(error, MemoryError) or "CUDA" in str(error)
        failed = 507 if out_of_memory else 503
    updates, context.updates[:] = context.updates.copy(), []
    answers = [] if failed else context.answers
    # A handler that is not of sonode has none.
    stages = {} if failed else getattr(handler, "last_spans", {})
    said = {"answers": answers, "failed": failed, "metrics": updates, "stages": stages}
    return frames.pack(said, bodies)


def main() -> None:
    """Serve batches of the socket that the server has handed over, until it closes."""
    # Whoever ends a service signals all of its processes; the server still needs this one.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s", force=True)
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rb") as file:
        facts, _ = frames.read(file)
        try:
            handler, context = load(facts)
        except Exception as error:
            logger.exception("the archive does not serve")
            words = f"{type(error).__name__}: {error}".splitlines()
            connection.sendall(b"".join(frames.pack({"failed": words[0]})))
            return
        heads = {name: list(it) for name, it in getattr(handler, "head_labels", {}).items()}
        updates, context.updates[:] = context.updates.copy(), []
        ready = {"failed": None, "heads": heads, "metrics": updates}
        connection.sendall(b"".join(frames.pack(ready)))
        while True:
            try:
                facts, blobs = frames.read(file)
                for part in answer(handler, context, facts, blobs):
                    connection.sendall(part)
            except (EOFError, OSError):  # the server has gone
                # Without clean-up: threads of the network would be waited for.
                os._exit(0)


if __name__ == "__main__":
    main()
