"""The command `sonode`, also as `python -m sonode`: the command line in a process of its own."""

import atexit
import logging
import os
import sys

from sonode.command_line import main


def run() -> None:
    """Run the command line, and end with its exit code whatever a library's threads do.

    Arrow's may abort a process that has done its work (exit code -6 or -11 in place of the
    command's, https://github.com/apache/arrow/issues/34314), or keep it from ending
    (https://github.com/apache/arrow/issues/50482): both in the destructors that C++ runs last. So
    the process leaves before these, and after all that Python has to do at its end.
    """
    codes: list[int] = []
    atexit.register(_leave, codes)  # the first to be registered is the last to be run
    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, int):
            codes.append(ended.code)
        raise


def _leave(codes: list[int]) -> None:
    if not codes:  # a signal or a fault ends it
        return
    logging.shutdown()  # registered earlier, when logging was imported
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(codes[0])


if __name__ == "__main__":
    run()
