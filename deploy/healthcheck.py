"""Whether the TorchServe of this machine answers and can score: exit code 0, else 1.

    python healthcheck.py RUN_DIR [PORT]

RUN_DIR is that of `sonode serve`, for its key file; PORT is 8080. The standard library alone: it
runs every few seconds, for as long as the node does.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path


def main() -> int:
    """Ask /ping, which wants a token."""
    run_dir, port = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "8080"
    try:
        token = json.loads((run_dir / "key_file.json").read_text())["inference"]["key"]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/ping", headers={"Authorization": f"Bearer {token}"}
        )
        # Without the environment's proxies: the token is for this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=4):
            return 0
    except (OSError, ValueError, KeyError) as error:  # no key file yet, half-written, no answer
        print(f"not serving: {type(error).__name__}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
