"""Which processes of a group are alive."""

import signal
import subprocess
import sys

from archives.torchserve.processes import living, signal_group

# Its first thread ends; another one keeps what is open, as that of a killed server does for a
# moment.
FIRST_THREAD_ENDS = """
import ctypes, pathlib, sys, threading
def other():
    while ") Z " not in pathlib.Path("/proc/self/stat").read_text():
        pass
    print(flush=True)
    sys.stdin.read()
threading.Thread(target=other).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_lives_until_its_last_thread_has_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FIRST_THREAD_ENDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert living(process.pid) == [process.pid]
        signal_group(process.pid, signal.SIGKILL)
        process.wait()
    assert living(process.pid) == []
