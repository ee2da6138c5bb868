"""What a rollout does at its nodes: all of it can be done twice."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from archives.gateway.logs import last_applied
from archives.nodes.nodes import Node, NoWorkerError, OtherBytesError
from archives.nodes.stores import no_space
from archives.rollout import host_shortage
from archives.state.journal import Release
from sonode.console import UserError, run_sonode

NOT_THERE = (httpx.TransportError, OSError, ValueError, KeyError)  # TorchServe ends, or starts
TRIES = 3
GOLDEN_TIMEOUT_S = 60.0
NO_WORKER = (503, 507)
VERIFY_TIMEOUT_S = 1800.0  # it reads every byte, and may have a slow disk
GONE_S = 30.0  # within so long a version that is taken off stays away
SETTLE_S = 1.5  # the gateway looks at a node once a second


class Refused(Exception):  # noqa: N818
    """The new version is rolled back: by which guard, and why, with numbers."""

    def __init__(self, guard: str, reason: str, **more: Any) -> None:
        super().__init__(f"{guard}: {reason}")
        self.guard, self.reason, self.more = guard, reason, more


class Failed(Refused):
    """It does not work on a node, which may be that machine's fault."""


def verify(archive: Path) -> None:
    """Check every byte of the archive, and its golden examples on this machine.

    In a process of its own: torch does not stay in the memory of one that runs for days. Raises
    Refused for what is wrong with the archive, UserError for what is wrong with this machine.
    """
    _check_space(archive)
    with tempfile.TemporaryFile("w+") as log:
        try:
            code = run_sonode(["inspect", str(archive), "--verify"], log, VERIFY_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise UserError(
                f"verify: not done after {VERIFY_TIMEOUT_S:g} s: check this machine's load, or run "
                "`sonode inspect --verify` on another one"
            ) from None
        log.seek(0)
        last = (log.read().strip().splitlines() or ["no message"])[-1].removeprefix("error: ")
    if code < 0:
        raise UserError(
            f"verify: killed by signal {-code}; check this machine's memory, then re-run"
        )
    if code:
        _check_space(archive)  # it may have been used up meanwhile
        if host_shortage.lack(last):
            raise UserError(
                f"verify: {last}: give this machine more of it; for disk space, or set TMPDIR"
            )
        raise Refused("verify", last)


def _check_space(archive: Path) -> None:
    """Raise UserError where the archive cannot be unpacked here."""
    if why := no_space(Path(tempfile.gettempdir()), archive, archive.name):
        raise UserError(f"verify: {why}: free disk space, or set TMPDIR")


def is_there(node: Node) -> bool:
    """Whether its TorchServe answers."""
    try:
        return node.healthy()
    except NOT_THERE:
        return False


def register_and_prove(node: Node, model: str, release: Release, tolerance: float) -> float | None:
    """Register the release on a node and send it the archive's golden images.

    Returns the largest difference of a probability to the archive's; None: the node went away.

    Raises:
        Refused: it does not start there, or its probabilities differ by more than `tolerance`.
        UserError: the node's store, its worker's bytes, or the archive here, are not as they must
            be, or its machine lacks disk space, memory or the like; not the version's fault, since
            `verify` has checked that the archive starts here and is intact.
    """
    logs = host_shortage.NodeLogs(node.settings.run_dir)
    lacks = ""
    try:
        try:
            node.register(model, release)
        except httpx.HTTPStatusError:  # a second try: a worker may have been killed as it started
            node.register(model, release)
        return golden_difference(node, model, release, tolerance)
    except NOT_THERE:  # nor is it the version's fault where the node takes long to answer
        return None
    except httpx.HTTPStatusError as error:
        lacks = host_shortage.refused_for(error.response)
        reason = (
            f"node {node.name} does not start {release.version} (TorchServe answers "
            f"{error.response.status_code}): see the node's logs/model_log.log"
        )
        failed = Failed("register", reason)
    except NoWorkerError as error:
        failed = Failed("register", str(error))
    except Failed as error:
        failed = error
    lacks = lacks or logs.lack()
    if not lacks and failed.guard == "register":
        archive = node.archives / release.file
        lacks = no_space(node.settings.run_dir, archive, release.version)
    if lacks:
        raise UserError(f"{failed.reason}; the cause is its machine ({lacks}): fix that")
    raise failed


def golden_difference(node: Node, model: str, release: Release, tolerance: float) -> float:
    """Score the golden images at a node; the largest difference of a probability.

    Raises Refused beyond `tolerance`, and httpx's errors where the node goes away.
    """
    differences = [0.0]
    with zipfile.ZipFile(node.archives / release.file) as archive:
        for example in json.loads(archive.read("golden/golden.json")):
            png = archive.read(f"golden/{example['image']}")
            headers = {
                "X-Roi": ",".join(map(str, example["roi"])),
                "Content-Type": "application/octet-stream",
            }
            where = f"node {node.name}, {example['image']}"
            try:
                answer = _score(node, model, release.version, png, headers)
            except httpx.ReadTimeout as error:
                if is_there(node):
                    reason = f"{where}: no answer within {GOLDEN_TIMEOUT_S:g} s"
                    raise Failed("golden", reason) from error
                raise
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise httpx.RemoteProtocolError(f"{where}: the node has restarted")
            if answer.status_code != 200:
                raise Failed("golden", f"{where}: answered {answer.status_code}")
            try:
                result = answer.json()
                loaded = str(result["model"]["sha256"])
                if loaded != release.sha256:
                    raise OtherBytesError(
                        f"node {node.name}: its worker of {release.version} has loaded other bytes "
                        f"(sha256 {loaded[:12]}) than the release's ({release.sha256[:12]}): "
                        "restart its TorchServe"
                    )
                by_head = {
                    head: _difference(expected, result["heads"][head])
                    for head, expected in example["probabilities"].items()
                }
            except (ValueError, KeyError, TypeError) as error:
                raise Refused("golden", f"{where}: its answer is not a sonode result") from error
            differences += by_head.values()
            for head, difference in by_head.items():
                if not difference <= tolerance:  # nor NaN
                    raise Refused(
                        "golden",
                        f"{where}, head {head}: probability differs by {difference:.2g}; the limit "
                        f"is {tolerance:g}",
                    )
    return max(differences)


def _difference(expected: float | dict[str, float], score: dict[str, Any]) -> float:
    """The largest one of a head's probabilities; a head of more labels than two has one a label."""
    if not isinstance(expected, dict):
        return abs(float(score["probability"]) - expected)
    return max(abs(float(score["distribution"][label]) - it) for label, it in expected.items())


def _score(
    node: Node, model: str, version: str, png: bytes, headers: dict[str, str]
) -> httpx.Response:
    """Ask once more where the worker was killed: a version at fault dies of the second, too."""
    answer = node.predict(model, version, png, headers, GOLDEN_TIMEOUT_S)
    if answer.status_code in NO_WORKER:
        answer = node.predict(model, version, png, headers, GOLDEN_TIMEOUT_S)
    return answer


def do(node: Node, act: Callable[[Node], object]) -> bool:
    """Do it at a node; False: the node does not answer, or not to this."""
    for _ in range(TRIES):
        try:
            act(node)
            return True
        except (*NOT_THERE, httpx.HTTPStatusError):
            time.sleep(1)
    return False


def unregister(node: Node, *, model: str, version: str, instead: str | None) -> None:
    """Unregister a version, and make sure that it stays away; the default is then `instead`.

    What the gateway began for this node a moment ago, by the entry before, may register it again.
    Raises TimeoutError where it comes back again and again.
    """
    until = time.monotonic() + GONE_S
    while version in (there := node.versions(model)):
        if time.monotonic() > until:
            raise TimeoutError(f"node {node.name}: {version} is registered repeatedly")
        node.take_off(model, version, there, instead)
        time.sleep(SETTLE_S)


def applied(state: Path) -> int:
    """The last entry of the journal that the gateway has applied; 0: none."""
    return int(last_applied(state).get("seq", 0))
