import subprocess
import sys

SAYS_WHO_SENDS = """
import handlers.engines.openvino_engine
import openvino
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
"""


def test_nothing_is_sent_to_anybody_when_openvino_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAYS_WHO_SENDS], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
