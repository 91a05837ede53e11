"""Signals find a stack after OpenVINO: without it the process ends at the next Ctrl-C."""

import subprocess
import sys

import pytest

pytest.importorskip("openvino")

CODE = """
import faulthandler
import os
import signal

import numpy

from sentei.export.engines import open_openvino
from sentei.export.silence import load_openvino

faulthandler.enable()  # gives the thread a signal stack
openvino = load_openvino()
given = openvino.opset13.parameter([-1, 8], numpy.float32)
product = openvino.opset13.matmul(given, numpy.ones((8, 8), numpy.float32), False, False)
graph = openvino.Model([product], [given])
first = open_openvino(graph, 1)
second = open_openvino(graph, 1)
del first
del second
signal.signal(signal.SIGINT, lambda number, frame: print("interrupted"))
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO exchanges signal stacks on Linux")
def test_ctrl_c_after_two_models_of_openvino_is_no_crash():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout == "interrupted\n"
