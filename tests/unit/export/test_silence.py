"""Others say nothing while we work with them, and send nothing."""

import subprocess
import sys

import pytest

pytest.importorskip("openvino")

CODE = """
import multiprocessing
import sys

def start(self):
    raise SystemExit("a process was started")

multiprocessing.Process.start = start
from sentei.export.silence import load_openvino
load_openvino()
import nncf
import openvino.tools.ovc.telemetry_utils as utils
print(utils.tm.__name__, "openvino_telemetry.main" in sys.modules)
"""


def test_openvino_and_nncf_tell_nobody():
    pytest.importorskip("nncf")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["openvino.tools.ovc.telemetry_stub", "False"]
