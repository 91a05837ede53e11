"""The engine gives what the model gives."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from helpers.encoders import HEADS, IMAGE_HEADS, IMAGES, MASKS, PREFIXES, build, check, inputs
from helpers.shrinking import KINDS, zero_
from sentei import runtime
from sentei.messages import SenteiWarning
from sentei.runtime.encoder import Unsupported
from sentei.shrink import save, shrink

TEXT = list(PREFIXES)


def compiled(model, **options):
    return runtime.compile(model, precision="fp32", **options)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("case", TEXT)
def test_heads(case, head, core):
    model = build(case, head)
    check(model, compiled(model), inputs(model))


@pytest.mark.parametrize("head", IMAGE_HEADS)
@pytest.mark.parametrize("case", IMAGES)
def test_images(case, head, core):
    model = build(case, head)
    check(model, compiled(model), inputs(model))


@pytest.mark.parametrize("case", TEXT)
def test_masks(case, core):
    model = build(case)
    engine = compiled(model)
    for mask in MASKS:
        check(model, engine, inputs(model, mask))
        check(model, engine, inputs(model, mask, length=1))


def test_other_teachers(core):
    model = build("deit", "ForImageClassificationWithTeacher")
    check(model, compiled(model), inputs(model))


@pytest.mark.parametrize("case", TEXT)
def test_outputs_of_masked_tokens_are_zeros(case, reference):
    model = build(case)
    given = inputs(model, "right")
    hidden = compiled(model)(**given).last_hidden_state
    masked = given["attention_mask"] == 0
    assert not hidden[masked].any()
    assert hidden[~masked].any(-1).all()


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.int32, torch.uint8, torch.float32, torch.bfloat16]
)
def test_types_of_masks(dtype, reference):
    model = build("bert")
    given = inputs(model, "left")
    given["attention_mask"] = given["attention_mask"].to(dtype)
    check(model, compiled(model), given)


@pytest.mark.parametrize("case", ["bert", "electra"])
def test_token_types(case, core):
    model = build(case)
    given = inputs(model, "right")
    given["token_type_ids"] = torch.arange(45).view(5, 9) % 2
    check(model, compiled(model), given)
    given["input_ids"] = given["input_ids"].int()
    check(model, compiled(model), given)


@pytest.mark.parametrize("case", TEXT)
def test_positions_given(case, core):
    model = build(case)
    engine = compiled(model)
    given = inputs(model, "right")
    for shape in ((1, 9), (5, 9)):
        places = torch.randint(0, 20, shape, generator=torch.Generator().manual_seed(3))
        check(model, engine, {**given, "position_ids": places})


@pytest.mark.parametrize("case", TEXT)
def test_embeddings_given(case, core):
    model = build(case)
    engine = compiled(model)
    for mask in ("none", "right", "empty"):
        given = inputs(model, mask)
        embeds = torch.randn(5, 9, 32, generator=torch.Generator().manual_seed(2))
        check(model, engine, {"inputs_embeds": embeds, "attention_mask": given["attention_mask"]})


@pytest.mark.parametrize("case", TEXT)
def test_no_mask(case, core):
    """Padding that no mask says is read, as the architecture reads it."""
    model = build(case)
    given = inputs(model, "left")
    engine = compiled(model)
    with torch.no_grad():
        expected = model(input_ids=given["input_ids"]).last_hidden_state
    actual = engine(given["input_ids"]).last_hidden_state
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_projected_embeddings(core):
    model = build("electra", "ForSequenceClassification", embedding_size=16)
    check(model, compiled(model), inputs(model, "holes"))
    embeds = torch.randn(2, 4, 16)
    check(model, compiled(model), {"inputs_embeds": embeds})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["bert", "roberta", "electra", "distilbert", "mpnet", "vit"])
def test_shrunk(case, kind, core, tmp_path):
    model = build(case, "ForImageClassification" if case == "vit" else "ForSequenceClassification")
    assert zero_(model, KINDS[kind])
    smaller, _ = shrink(model)
    smaller.set_attn_implementation("eager")
    given = inputs(smaller, "none" if case == "vit" else "holes")
    check(smaller, compiled(smaller), given)
    save(smaller, tmp_path / "shrunk")
    check(smaller, compiled(tmp_path / "shrunk"), given)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["bert", "electra", "vit"])
def test_half_precision(case, dtype, core):
    """Outputs are the model's type; the encoder computes wider than it."""
    head = "ForImageClassification" if case == "vit" else "ForSequenceClassification"
    model = build(case, head).to(dtype)
    given = inputs(model)
    check(model, compiled(model), given, rtol=0.05, atol=0.05)


def test_loss_and_tuples(core):
    model = build("bert", "ForSequenceClassification")
    given = inputs(model) | {"labels": torch.arange(5) % 3}
    check(model, compiled(model), given)
    for case in TEXT:
        for pooling in (True, False) if case == "mpnet" else (True,):
            model = build(case)
            model.pooler = model.pooler if pooling and hasattr(model, "pooler") else None
            given = inputs(model)
            engine = compiled(model)
            expected, actual = model(**given, return_dict=False), engine(**given, return_dict=False)
            assert type(actual) is tuple
            assert [type(one) for one in actual] == [type(one) for one in expected]


def test_arrays_and_lists(reference):
    model = build("bert")
    engine = compiled(model)
    expected = engine(input_ids=torch.tensor([[5, 6, 7]])).last_hidden_state
    for ids in ([[5, 6, 7]], np.array([[5, 6, 7]]), np.array([[5, 6, 7]], np.int32)):
        assert engine(input_ids=ids).last_hidden_state.equal(expected)


@pytest.mark.parametrize("batch, length", [(0, 5), (3, 0)])
def test_nothing(batch, length, core):
    engine = compiled(build("bert", "ForTokenClassification"))
    logits = engine(input_ids=torch.zeros(batch, length, dtype=torch.long)).logits
    assert logits.shape == (batch, length, 3)


# ------------------------------------------------------------------------------ the model beside


def test_the_model_stays_as_it_is(reference):
    model = build("bert", "ForSequenceClassification")
    model.train()
    before = {name: (id(module), module.training) for name, module in model.named_modules()}
    weights = {name: id(parameter) for name, parameter in model.named_parameters()}
    engine = compiled(model)
    engine(**inputs(model))
    assert reference[0].runs == 1
    assert "forward" not in vars(model.bert)
    assert {n: (id(m), m.training) for n, m in model.named_modules()} == before
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == weights
    model.eval()(**inputs(model))
    assert reference[0].runs == 1


def test_evaluation_alone(reference):
    """The engine is in evaluation where the model is in training: no dropout."""
    model = build("bert", "ForSequenceClassification", classifier_dropout=0.9)
    given = inputs(model)
    expected = model(**given).logits
    engine = compiled(model.train())
    torch.testing.assert_close(engine(**given).logits, expected, rtol=1e-4, atol=1e-4)


def test_weights_that_change(reference):
    model = build("bert", "ForSequenceClassification")
    engine = compiled(model)
    check(model, engine, inputs(model))
    check(model, engine, inputs(model))
    assert len(reference) == 1
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight.mul_(0.5)
    check(model, engine, inputs(model))
    assert len(reference) == 2


def test_tied_weights_are_shared(reference):
    model = build("bert", "ForMaskedLM")
    engine = compiled(model)
    own = engine.model
    assert own.cls.predictions.decoder.weight is own.bert.embeddings.word_embeddings.weight
    assert own.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


# ----------------------------------------------------------------------------------- from folders


@pytest.mark.parametrize("case", [*TEXT, *IMAGES])
def test_folder(case, core, tmp_path):
    head = "ForImageClassification" if case in IMAGES else "ForSequenceClassification"
    model = build(case, head)
    model.save_pretrained(tmp_path / "model")
    engine = compiled(tmp_path)
    given = inputs(model)
    check(model, engine, given)
    assert type(engine.model) is type(model)
    body = engine.model.base_model
    blocks = [p for n, p in body.named_parameters() if ".layer." in n or n.startswith("layers.")]
    assert blocks and all(parameter.device.type == "meta" for parameter in blocks)
    check(model, engine, given)


def test_folder_with_a_fallback_keeps_its_weights(reference, tmp_path):
    model = build("bert")
    model.save_pretrained(tmp_path)
    engine = compiled(tmp_path, fallback="torch")
    given = inputs(model)
    output = engine(**given, output_hidden_states=True)
    assert len(output.hidden_states) == 4 and reference[0].runs == 0
    check(model, engine, given)
    assert reference[0].runs == 1


def test_half_precision_folder(reference, tmp_path):
    build("bert").bfloat16().save_pretrained(tmp_path)
    assert compiled(tmp_path)([[5, 6]]).last_hidden_state.dtype == torch.float32


def test_folders_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        runtime.compile(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        runtime.compile(tmp_path / "absent")
    build("bert").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be loaded"):
        runtime.compile(tmp_path)


def test_folder_without_its_head(tmp_path):
    model = build("bert")
    model.config.architectures = ["BertForSequenceClassification"]
    model.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lack weights .* classifier.bias"):
        runtime.compile(tmp_path)


def test_other_things():
    with pytest.raises(ValueError, match="a Linear is no model of transformers"):
        runtime.compile(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="fallback='touch': give 'torch' or None; did you mean"):
        runtime.compile(build("bert"), fallback="touch")


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", ["output_attentions", "output_hidden_states"])
def test_other_outputs(name, reference):
    model = build("bert", "ForSequenceClassification")
    given = inputs(model)
    with pytest.raises(Unsupported, match=f"{name}: the engine gives the last hidden state"):
        compiled(model)(**given, **{name: True})
    engine = compiled(model, fallback="torch")
    check(model, engine, given | {name: True})
    assert reference[-1].runs == 0
    check(model, engine, given)
    assert reference[-1].runs == 1


def test_other_outputs_by_config(reference):
    model = build("bert", output_hidden_states=True)
    engine = compiled(model)
    with pytest.raises(Unsupported, match="output_hidden_states"):
        engine(**inputs(model))
    engine(**inputs(model), output_hidden_states=False)


@pytest.mark.parametrize("shape", [(5, 9, 9), (5, 1, 9, 9), (5, 8)])
def test_other_masks(shape, reference):
    model = build("bert")
    given = inputs(model) | {"attention_mask": torch.ones(shape)}
    with pytest.raises(Unsupported, match="attention_mask"):
        compiled(model)(**given)
    if shape == (5, 1, 9, 9):
        given["attention_mask"] = torch.zeros(shape).index_fill(3, torch.tensor([2]), -1e30)
        engine = compiled(model, fallback="torch")
        expected = model(**given).last_hidden_state
        assert engine(**given).last_hidden_state.equal(expected)


def test_decoders_inputs(reference):
    model = build("bert")
    engine = compiled(model)
    for name in ("encoder_hidden_states", "past_key_values", "encoder_attention_mask"):
        with pytest.raises(Unsupported, match=f"{name}: the engine runs encoders"):
            engine(**inputs(model), **{name: torch.ones(5, 9, 32)})
    with pytest.raises(Unsupported, match="is_causal"):
        engine(**inputs(model), is_causal=True)


def test_other_devices(reference):
    model = build("bert")
    given = {name: value.to("meta") for name, value in inputs(model).items()}
    with pytest.raises(Unsupported, match="is on meta: the engine runs on the CPU"):
        compiled(model)(**given)


def test_bad_ids(core):
    engine = compiled(build("bert", "ForSequenceClassification"))
    with pytest.raises(ValueError, match="input_ids holds 40: the model has 0 to 39"):
        engine([[5, 40]])
    with pytest.raises(ValueError, match="input_ids holds -1"):
        engine([[5, -1]])
    with pytest.raises(ValueError, match="21 tokens: the model has positions for 20"):
        engine([[5] * 21])
    with pytest.raises(ValueError, match=r"inputs of shape \(2,\)"):
        engine([5, 6])
    with pytest.raises(ValueError, match="give input_ids or inputs_embeds"):
        engine()
    with pytest.raises(ValueError, match="give whole numbers"):
        engine([[5.0, 6.0]])


def test_too_long_for_relative_positions(reference):
    model = build("mpnet")
    ids = torch.full((1, 25), 0)
    with pytest.raises(ValueError, match="25 tokens: the model has positions for 20"):
        compiled(model)(ids)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite(value, core):
    model = build("vit", "ForImageClassification")
    given = inputs(model)
    given["pixel_values"][1, 0, 2, 2] = value
    with pytest.raises(Unsupported, match="hold NaN or infinity"):
        compiled(model)(**given)
    expected = model(**given).logits
    actual = compiled(model, fallback="torch")(**given).logits
    torch.testing.assert_close(actual, expected, equal_nan=True)


@pytest.mark.parametrize("fallback", [None, "torch"])
def test_models_that_the_engine_does_not_run(fallback):
    model = build("bert", hidden_act="swish")
    if fallback is None:
        with pytest.raises(Unsupported, match="SiLU"):
            runtime.compile(model)
        return
    with pytest.warns(SenteiWarning, match="torch runs the model: activation SiLU"):
        engine = runtime.compile(model, fallback=fallback)
    check(model, engine, inputs(model))
    assert engine.plan is None and engine.precision is None


def test_other_families_fall_back(tmp_path):
    from helpers.zoo import ZOO

    model = ZOO["albert"].build()
    with pytest.raises(Unsupported, match="model type albert"):
        runtime.compile(model)
    with pytest.warns(SenteiWarning, match="model type albert"):
        engine = runtime.compile(model, fallback="torch")
    given = ZOO["albert"].inputs()
    assert engine(**given).logits.equal(model(**given).logits)


def test_without_llvmlite(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentei.runtime.program", None)
    with pytest.raises(Unsupported, match=r"pip install 'sentei\[runtime\]'"):
        runtime.compile(build("bert"))


# --------------------------------------------------------------------------------- many and never


def test_threads(core):
    model = build("bert", "ForSequenceClassification")
    engine = compiled(model)
    given = {mask: inputs(model, mask) for mask in MASKS}
    expected = {mask: engine(**one).logits for mask, one in given.items()}
    wrong = []

    def call(mask):
        for _ in range(5):
            if not torch.allclose(engine(**given[mask]).logits, expected[mask], atol=1e-6):
                wrong.append(mask)

    threads = [threading.Thread(target=call, args=(mask,)) for mask in MASKS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_close(core):
    model = build("bert")
    with compiled(model) as engine:
        engine(**inputs(model))
        assert engine.precision == "fp32"
        assert str(engine.plan)
    with pytest.raises(ValueError, match="this engine is closed"):
        engine(**inputs(model))
    with pytest.raises(ValueError, match="this engine is closed"):
        engine.embed(["a"])
    engine.close()


def test_nothing_is_left_behind(reference):
    """An engine goes with its last name: there is no circle to be collected."""
    model = build("bert")
    gc.collect()
    gc.disable()
    try:
        engine = compiled(model)
        engine(**inputs(model))
        own, program = weakref.ref(engine.model), weakref.ref(reference.pop())
        del engine
        assert own() is None and program() is None
    finally:
        gc.enable()
