"""Folders for other engines: sparse, shrunk, in halves, in int8; or nothing at all."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, BertConfig, BertForSequenceClassification
from transformers import PreTrainedModel as Base

from helpers.zoo import ZOO
from sentei import shrink
from sentei.export import export
from sentei.models.outputs import outputs


@pytest.fixture
def onnx():
    """ONNX, with what writes and what runs it."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("onnx")


def shallow(name: str):
    """A model type of the zoo with one layer a stack: tracing takes a time for each."""
    one = dict.fromkeys(("num_hidden_layers", "encoder_layers", "decoder_layers"), 1)
    settings = ZOO[name].settings
    return replace(ZOO[name], settings=settings | {k: v for k, v in one.items() if k in settings})


def texts(rows: int, length: int) -> dict:
    ids = torch.randint(5, 17, (rows, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[-1, length - 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def session(file):
    import onnxruntime

    opened = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda inputs: opened.run(None, {name: one.numpy() for name, one in inputs.items()})


@pytest.fixture
def sparse(tiny_model):
    """Half of its weights are zero, among them unlike numbers of neurons of its two layers."""
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(tiny_model, num_labels=3, num_hidden_layers=2)
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for number, one in enumerate(model.bert.encoder.layer):
            one.attention.output.dense.weight.view(-1)[::2] = 0
            one.output.dense.weight[:, 4 * number : 20] = 0
    return model


def test_a_shrunk_sparse_model_gives_the_same_in_onnx_at_any_size(
    onnx, sparse, tiny_model, tmp_path
):
    model, _ = shrink.shrink(sparse)
    model.train()
    report = export(
        model, tmp_path / "out", to="onnx", inputs=[texts(3, 7), texts(1, 12)], files=tiny_model
    )
    assert model.training
    assert report.agreement.examples == report.agreement.same == report.agreement.answers == 4
    assert report.agreement.relative < 1e-5 and [*report.files] == ["model.onnx"]
    model.eval()
    run = session(tmp_path / "out" / "model.onnx")
    for inputs in (texts(1, 2), texts(5, 30)):
        torch.testing.assert_close(
            torch.from_numpy(run(inputs)[0]), outputs(model, inputs)["logits"], rtol=1e-4, atol=1e-5
        )
    assert AutoConfig.from_pretrained(tmp_path / "out").num_labels == 3
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("the film").input_ids
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == report.model_dump(
        mode="json"
    )

    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    matrices = [onnx.numpy_helper.to_array(one) for one in graph.initializer if len(one.dims) == 2]
    zeros = sum(int((one == 0).sum()) for one in matrices)
    wanted = sum(int((one == 0).sum()) for one in model.parameters() if one.dim() == 2)
    assert zeros >= wanted > 200


def test_texts_are_written_by_two_graphs_as_by_the_model(onnx, tmp_path):
    model = shallow("bart").build("BartForConditionalGeneration")
    first = torch.full((3, 1), model.config.decoder_start_token_id)
    inputs = texts(3, 6) | {"decoder_input_ids": torch.cat([first, texts(3, 4)["input_ids"]], 1)}
    report = export(model, tmp_path / "out", to="onnx", inputs=[inputs])
    assert [*report.files] == ["decoder_model.onnx", "encoder_model.onnx"]
    assert report.agreement.answers == 3 * 5 and report.agreement.relative < 1e-5
    assert model.config.use_cache and not AutoConfig.from_pretrained(tmp_path / "out").use_cache

    encoder, decoder = (session(tmp_path / "out" / name) for name in sorted(report.files)[::-1])
    read, tokens = texts(2, 9), first[:2]
    states = torch.from_numpy(encoder(read)[0])
    for _ in range(6):
        seen = {"encoder_hidden_states": states, "encoder_attention_mask": read["attention_mask"]}
        logits = decoder(seen | {"input_ids": tokens})[0]
        tokens = torch.cat([tokens, torch.from_numpy(logits[:, -1:].argmax(-1))], 1)
    greedy = {"do_sample": False, "num_beams": 1, "eos_token_id": 99}
    with torch.inference_mode():
        ours = model.generate(**read, max_new_tokens=6, min_new_tokens=6, **greedy)
    assert torch.equal(tokens, ours)


def test_next_tokens_are_the_same_in_openvino(onnx, tmp_path):
    openvino = pytest.importorskip("openvino")
    model = shallow("llama").build("LlamaForCausalLM")
    ids = {"input_ids": texts(3, 7)["input_ids"]}
    report = export(model, tmp_path / "out", to="openvino", inputs=[ids])
    assert [*report.files] == ["openvino_model.bin", "openvino_model.xml"]
    assert report.agreement.same == report.agreement.answers == 21
    assert report.agreement.relative < 1e-5
    written = openvino.Core().read_model(tmp_path / "out" / "openvino_model.xml")
    assert {port.any_name for port in written.inputs} == {"input_ids", "attention_mask"}


def test_beyond_the_tolerance_nothing_is_written(onnx, tmp_path):
    model = shallow("vit").build()
    pixels = {"pixel_values": torch.rand(4, 3, 8, 8)}
    with pytest.raises(ValueError) as caught:
        export(model, tmp_path / "out", to="onnx", inputs=[pixels], int8=True, tolerance=1e-9)
    assert "--to onnx --int8: its outputs differ from the model's by" in str(caught.value)
    assert "of 4 answers the same), and 1e-09 is taken at most" in str(caught.value)
    assert [*tmp_path.iterdir()] == []


class Fickle(Base):
    """By the attentions named, what it computes depends on what it reads: no graph can say that."""

    config_class = BertConfig
    _supports_sdpa = True

    def __init__(self, config, attentions):
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, 4)
        self.attentions = attentions
        self.post_init()

    def forward(self, input_ids):
        fickle = self.config._attn_implementation in self.attentions
        twice = fickle and bool(input_ids.sum() > 3)
        return {"last_hidden_state": self.table(input_ids) * (2 if twice else 1)}


@pytest.mark.parametrize(
    ("attentions", "says"),
    [
        # the plain attention is exported, and compared with the fused one, here another
        (["sdpa"], r"its outputs differ from the model's by 0\.5 of their size"),
        (["sdpa", "eager"], "PyTorch does not export the model: .+"),
    ],
    ids=["fused", "both"],
)
def test_what_cannot_be_exported_is_tried_with_plain_attention(onnx, tmp_path, attentions, says):
    model = Fickle(BertConfig(vocab_size=20), attentions).eval()
    assert model.config._attn_implementation == "sdpa"
    ids = {"input_ids": texts(2, 4)["input_ids"]}
    with pytest.raises(ValueError, match=says):
        export(model, tmp_path / "out", to="onnx", inputs=[ids])
    assert model.config._attn_implementation == "sdpa" and [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda model: model.bfloat16(), "in bfloat16 on cpu, and is exported in fp32"),
        (lambda model: nn.Sequential(model), "a Sequential cannot be exported: give the Transf"),
        (lambda model: None, "inputs: there are none"),
    ],
    ids=["bf16", "wrapped", "no inputs"],
)
def test_what_is_no_model_in_fp32_is_refused_at_once(onnx, sparse, tmp_path, change, says):
    changed = change(sparse)
    inputs = [texts(2, 4)] if changed is not None else []
    with pytest.raises(ValueError, match=says):
        export(changed or sparse, tmp_path / "out", to="onnx", inputs=inputs)
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_holds_something_is_left_alone(onnx, sparse, tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ValueError, match="is not empty"):
        export(sparse, tmp_path, to="onnx", inputs=[texts(2, 4)])
    assert [one.name for one in tmp_path.iterdir()] == ["mine"]
