"""Every engine that is installed gives what torch gives; the others say why they cannot."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering, BertModel

from sentei import shrink
from sentei.models.outputs import outputs
from sentei.runtime.bench.choice import choose
from sentei.runtime.bench.contender import Model
from sentei.runtime.bench.exported import exported
from sentei.runtime.bench.measure import difference
from sentei.runtime.bench.opening import open_engines
from sentei.runtime.bench.workloads import sequences, workloads

CONFIG = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
}
CLOSE = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.2}


def made(module, folder, shrunk=None):
    ones = [dict(sequences(module, None, 1, 12)) for _ in range(4)]
    return Model(module, shrunk, sequences(module, None, 2, 12), ones, 1, folder)


@pytest.fixture
def module():
    torch.manual_seed(0)
    return BertModel(BertConfig(**CONFIG)).eval()


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino", "sentei"])
def test_an_engine_gives_what_torch_gives_at_any_size(name, module, tmp_path):
    engines = choose([name], [])
    contenders, absent = open_engines(engines, made(module, tmp_path))
    if not contenders:
        pytest.skip("; ".join(absent))
    for workload in workloads(module, None, [1, 3], ["5", "24"]):
        for contender in contenders:
            relative, _ = difference(module, contender, workload)
            assert relative < CLOSE[contender.engine.precision], str(contender.engine)


def test_answers_have_two_outputs(tmp_path):
    module = BertForQuestionAnswering(BertConfig(**CONFIG)).eval()
    model = made(module, tmp_path)
    assert model.outputs == ("start_logits", "end_logits")
    contenders, _ = open_engines(choose(["torch"], ["bf16"]), model)
    assert {*contenders[0].run(model.sample)} == {"start_logits", "end_logits"}


def test_shrunk_is_timed_only_where_something_is_idle(module, tmp_path):
    _, [reason] = open_engines(choose(["shrunk"], []), made(module, tmp_path))
    assert reason.startswith("shrunk fp32: no attention head and no neuron is wholly zero")
    with torch.no_grad():
        module.encoder.layer[0].output.dense.weight[:, :20] = 0
    smaller, _ = shrink.shrink(module)
    model = made(module, tmp_path, smaller.eval())
    [contender], [] = open_engines(choose(["shrunk"], []), model)
    theirs = outputs(module, model.sample)["last_hidden_state"]
    torch.testing.assert_close(contender.run(model.sample)["last_hidden_state"], theirs)


def test_a_model_that_cannot_be_exported_is_tried_once(module, tmp_path, monkeypatch):
    calls = []

    def fails(*args, **kwargs):
        calls.append(args)
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(torch.onnx, "export", fails)
    model = made(module, tmp_path)
    for _ in range(2):
        with pytest.raises(ValueError) as caught:
            exported(model)
        assert str(caught.value) == "PyTorch does not export the model: no such operator"
    assert len(calls) == 1
