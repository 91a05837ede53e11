"""What several tests need: a tiny model, and data that it can learn."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from helpers.tiny import write_bert, write_data

# One thread here and in every process a test starts: tiny tensors gain nothing from more, and runs
# that are compared bit for bit must add in the same order.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
# OpenVINO would send a message when it is imported, from a process forked beside other threads.
sys.modules.setdefault("openvino_telemetry", None)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has processes ignore it; some tests send it


@pytest.fixture(scope="session", autouse=True)
def no_power_cuts():
    """Nothing waits for the disk in this process: no test can see a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def what_is_imported_is_no_garbage():
    """A Trainer collects garbage, in which it would look through all that was ever imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Compiled kernels go to a folder of the session's, which its workers share.

    So does the code of models that bring their own.
    """
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENTEI_CACHE", str(folder / "sentei-cache"))
        patch.setenv("HF_MODULES_CACHE", str(base / "modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(base / "modules"))
        yield


@contextmanager
def _empty_pages():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sentei.report.render_html", lambda report, speed: "")
        yield


@pytest.fixture(scope="module")
def no_pages():
    """Runs write an empty page: one is drawn in more time than a tiny model is trained in."""
    with _empty_pages():
        yield


@pytest.fixture
def no_page():
    """The runs of one test do, where another test of the module reads a page."""
    with _empty_pages():
        yield


@pytest.fixture
def no_accelerator_is_left():
    """What a Trainer or an Accelerator has set for the whole process goes with the test."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A folder with an untrained BERT without a head, and its tokenizer."""
    return write_bert(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> dict[str, Path]:
    """A training file and an evaluation file."""
    return write_data(tmp_path_factory.mktemp("data"))
