"""`sonode score` with several archives: one process for each, all at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import joblib

from batch.report import notify
from sonode.console import PARENT


def run(archives: list[str], out: str, on_finish: str | None) -> int:
    """Run this process's command once per archive, all at once; give the largest exit code.

    A process that a signal ended counts as shells count it, 128 and the signal's number. It could
    not notify `--on-finish`; this process does. They end with this process, however it ends.
    """
    words = iter(sys.argv[2:])  # behind `score`
    options = [word for word in words if not (word == "--archive" and next(words))]
    options = [word for word in options if not word.startswith("--archive=")]
    # Cores are shared out, unless the user has done so.
    threads = str(max(1, joblib.cpu_count() // len(archives)))
    environment = {"SONODE_HANDLER_THREADS": threads, **os.environ, PARENT: str(os.getpid())}
    children = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "sonode", "score", f"--archive={archive}", *options],
            env=environment,
            start_new_session=True,  # a Ctrl-C reaches each once, from here
        )
        for archive in archives
    ]
    try:
        codes = [child.wait() for child in children]
    except KeyboardInterrupt:
        for child in children:
            child.send_signal(signal.SIGINT)
        for child in children:
            child.wait()
        raise
    for archive, code in zip(archives, codes, strict=True):
        if code < 0:
            message = f"ended by signal {-code}"
            print(
                f"error: --archive {archive}: {message}; re-run the same command to resume",
                file=sys.stderr,
            )
            if on_finish is not None:
                facts = {"out": out, "archive": archive, "message": message}
                notify.report_end(on_finish, "error", facts)
    return max(code if code >= 0 else 128 - code for code in codes)
