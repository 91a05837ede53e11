"""Which engines are timed, and what is said of those that are not installed."""

from __future__ import annotations

import pytest

from sentei.runtime.bench import choice
from sentei.runtime.bench.choice import ENGINES, PRECISIONS, Engine, choose, split


def test_all_engines_at_all_precisions_where_nothing_is_named():
    chosen = choose([], [])
    assert {engine.name for engine in chosen} == {*ENGINES}
    assert {engine.precision for engine in chosen} == {*PRECISIONS}
    assert Engine("openvino", "int8") in chosen and Engine("onnxruntime", "bf16") not in chosen


def test_what_is_named_is_chosen_in_that_order():
    assert choose(["torch", "sentei"], ["bf16"]) == (
        Engine("torch", "bf16"),
        Engine("sentei", "bf16"),
    )


@pytest.mark.parametrize(
    ("names", "precisions", "says"),
    [
        (["onnxruntme"], [], "--engine onnxruntme; did you mean 'onnxruntime'?"),
        (["deepsparse"], [], "Choose from sentei, torch, shrunk, onnxruntime, openvino"),
        ([], ["int4"], "--precision int4"),
        (["shrunk"], ["int8"], "shrunk cannot do that"),
    ],
)
def test_what_there_is_not_is_refused(names, precisions, says):
    with pytest.raises(ValueError) as caught:
        choose(names, precisions)
    assert says in str(caught.value)


def test_what_is_not_installed_is_said_once_for_each_set_of_packages(monkeypatch):
    here = {"onnx", "onnxscript", "onnxruntime"}
    monkeypatch.setattr(
        choice.importlib.util, "find_spec", lambda name: object() if name in here else None
    )
    usable, absent = split(choose(["torch", "onnxruntime", "openvino"], []))
    assert [str(engine) for engine in usable] == [
        *("torch fp32", "torch bf16"),
        *("onnxruntime fp32", "onnxruntime int8"),
    ]
    assert absent == (
        "openvino fp32, openvino bf16: not installed: openvino",
        "openvino int8: not installed: openvino nncf",
    )
