"""What can be written, and what is said of what is not installed."""

from __future__ import annotations

import pytest

from sentei.export import target
from sentei.export.target import Target


@pytest.fixture
def bare(monkeypatch):
    monkeypatch.setattr(target.importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Target("onnx"), "--to onnx: not installed: onnx onnxscript onnxruntime; pip install"),
        (Target("onnx", int8=True), "--to onnx --int8: not installed: onnx onnxscript onnxruntime"),
        (Target("openvino"), "--to openvino: not installed: onnx onnxscript openvino;"),
        (Target("openvino", int8=True), "onnx onnxscript openvino nncf; pip install"),
    ],
    ids=["onnx", "onnx-int8", "openvino", "openvino-int8"],
)
def test_what_is_missing_is_named_with_the_extra_that_brings_it(bare, wanted, says):
    with pytest.raises(ValueError) as caught:
        wanted.check()
    assert says in str(caught.value) and "sentei[export]" in str(caught.value)


def test_there_is_no_other_format():
    with pytest.raises(ValueError, match="--to opnvino; did you mean 'openvino'"):
        Target("opnvino").check()
