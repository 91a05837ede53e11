"""Smaller models against the sparse ones they come from, for every family."""

import copy

import pytest
import torch
from torch import nn

from helpers.shrinking import DIVIDED, KINDS, same, structures, zero_
from helpers.zoo import TEXT, ZOO, Specimen
from sentei.models.folder import MANIFEST
from sentei.models.structures import divide, family_of
from sentei.shrink import load, save, shrink

DECODERS = [case for case in ZOO if ZOO[case].generates]
HEADS_IN_CONFIG = {"vit", "deit", "llama", "mistral", "qwen2", "qwen3", "t5"}


# ----------------------------------------------------------------------------- every architecture


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", DIVIDED)
def test_a_smaller_model_computes_the_same(case, kind, tmp_path):
    model, inputs = ZOO[case].build().double(), ZOO[case].inputs()
    dense = model(**inputs).logits
    zeroed = zero_(model, KINDS[kind])
    before = copy.deepcopy(model.state_dict())
    wanted = model(**inputs).logits
    assert (wanted - dense).abs().max() > 1e-6

    smaller, report = shrink(model)

    kept_idle = sum(
        len(list(KINDS[kind](n, s))) == s.units for n, s in enumerate(structures(model))
    )
    assert report.removed == zeroed - kept_idle
    assert report.parameters_after < report.parameters_before
    assert report.flops_after < report.flops_before
    assert type(smaller) is type(model)
    assert report.stock == (kind == "alike" and case.split(",")[0] in HEADS_IN_CONFIG)
    assert bool(report.reason) is not report.stock
    same(smaller(**inputs).logits, wanted)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    single = {name: t.float() if t.is_floating_point() else t for name, t in inputs.items()}
    same(copy.deepcopy(smaller).float()(**single).logits.double(), wanted, tolerance=1e-4)

    save(smaller, tmp_path / "out")
    assert (tmp_path / "out" / MANIFEST).is_file() is not report.stock
    loaded = load(tmp_path / "out")
    same(loaded(**inputs).logits, wanted)
    if report.stock:
        same(type(model).from_pretrained(tmp_path / "out")(**inputs).logits, wanted)
    again, second = shrink(loaded)
    assert (again, second.removed, second.stock) == (loaded, 0, report.stock)


@torch.no_grad()
@pytest.mark.parametrize("case", DIVIDED)
def test_fewer_neurons_in_every_block_alike_need_no_loader(case, tmp_path):
    model, inputs = ZOO[case].build().double(), ZOO[case].inputs()
    zero_(model, lambda n, s: range(3) if s.unit == "neuron" else [])
    smaller, report = shrink(model)
    assert report.stock and report.units("neuron")[1] == report.units("neuron")[0] - 3 * sum(
        one.unit == "neuron" for one in report.structures
    )
    save(smaller, tmp_path / "out")
    loaded = type(model).from_pretrained(tmp_path / "out")
    same(loaded(**inputs).logits, model(**inputs).logits)


@torch.no_grad()
@pytest.mark.parametrize("case", DIVIDED)
def test_a_stock_model_goes_without_what_every_block_can_spare(case, tmp_path):
    model, inputs = ZOO[case].build().double(), ZOO[case].inputs()
    idle = {"head": [0, 0, 1], "neuron": [5, 3, 4]}
    zero_(model, lambda n, s: range(idle[s.unit][n % 3]))
    zeroed = {}  # by the config's word for it: encoder and decoder may have one each
    for n, at in enumerate(divide(model, family_of(model))):
        if at.structure.unit == "neuron":
            zeroed.setdefault(at.spec.count, []).append(idle["neuron"][n % 3])
    wanted = model(**inputs).logits

    smaller, report = shrink(model, stock=True)

    assert report.stock and not report.reason
    before, after = report.units("neuron")
    assert before - after == sum(min(counts) * len(counts) for counts in zeroed.values())
    assert report.units("head")[0] == report.units("head")[1]
    same(smaller(**inputs).logits, wanted)
    smaller.save_pretrained(tmp_path)
    same(type(model).from_pretrained(tmp_path, dtype=torch.float64)(**inputs).logits, wanted)


@torch.no_grad()
@pytest.mark.parametrize("kind", ("alike", "ragged"))
@pytest.mark.parametrize("case", DECODERS)
def test_generation_with_a_cache(case, kind, tmp_path):
    specimen = ZOO[case]
    model = specimen.build(specimen.generates).double()
    zero_(model, KINDS[kind])
    smaller, _ = shrink(model)
    save(smaller, tmp_path / "out")
    smaller = load(tmp_path / "out")
    inputs = specimen.inputs()
    options = {
        "max_new_tokens": 6,
        "min_new_tokens": 6,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    wanted = model.generate(**inputs, **options)
    for settings in ({}, {"use_cache": False}, {"cache_implementation": "static"}):
        found = smaller.generate(**inputs, **options, **settings)
        assert torch.equal(found.sequences, wanted.sequences)
        for one, other in zip(found.logits, wanted.logits, strict=True):
            same(one.double(), other.double(), tolerance=1e-6)


# ------------------------------------------------------------------------------------- what goes


@torch.no_grad()
@pytest.mark.parametrize(
    ("case", "kind", "zeros", "goes"),
    [
        ("bert", "head", {"out"}, True),
        ("bert", "head", {"value"}, True),  # its bias is folded
        ("bert", "head", {"query", "key"}, False),
        ("bert", "neuron", {"ffn_in"}, True),  # the same
        ("deberta", "head", {"query", "key", "value"}, True),  # one matrix; v_bias is folded
        ("gpt2", "head", {"value"}, True),
        ("gpt2", "neuron", {"ffn_in"}, True),
        ("llama", "head", {"value"}, True),
        ("llama", "neuron", {"ffn_in"}, True),
        ("llama", "neuron", {"ffn_gate"}, True),
        ("modernbert", "neuron", {"ffn_gate"}, True),
        ("qwen2", "head", {"value"}, False),  # a bias, and none behind it to take it up
        ("t5", "head", {"value"}, True),
        ("t5", "neuron", {"ffn_in"}, True),
        ("t5, gated", "neuron", {"ffn_gate"}, True),
        ("bart", "head", {"value"}, True),
    ],
)
def test_units_that_are_zero_or_constant_go(case, kind, zeros, goes):
    model, inputs = ZOO[case].build().double(), ZOO[case].inputs()
    chosen = zero_(
        model,
        lambda n, s: [1] if s.unit == kind else [],
        lambda holds: bool(zeros & set(holds)),
        biases=False,
    )
    smaller, report = shrink(model)
    assert report.removed == (chosen if goes else 0)
    has_bias = case.split(",")[0] in ("bert", "deberta", "gpt2", "bart") and "out" not in zeros
    assert report.folded == (chosen if goes and has_bias else 0)
    same(smaller(**inputs).logits, model(**inputs).logits)


@torch.no_grad()
@pytest.mark.parametrize("case", ("llama", "modernbert"))
def test_a_gated_neuron_of_biases_alone_is_folded(case):
    specimen = ZOO[case]
    model = Specimen(specimen.config, specimen.settings | {"mlp_bias": True}, ()).build().double()
    zero_(
        model,
        lambda n, s: [3, 5] if s.unit == "neuron" else [],
        lambda holds: holds != ("out",),
        biases=False,
    )
    smaller, report = shrink(model)
    assert (report.removed, report.folded) == (6, 6)
    same(smaller(**specimen.inputs()).logits, model(**specimen.inputs()).logits)


@torch.no_grad()
def test_a_constant_value_is_folded_for_each_query_head_that_shares_it():
    specimen = ZOO["llama"]
    settings = specimen.settings | {"attention_bias": True}
    model = Specimen(specimen.config, settings, ()).build().double()
    zero_(
        model,
        lambda n, s: [1] if s.unit == "head" else [],
        lambda holds: holds == ("value",),
        biases=False,
    )
    smaller, report = shrink(model)
    assert (report.removed, report.folded) == (3, 3)
    same(smaller(**specimen.inputs()).logits, model(**specimen.inputs()).logits)


@torch.no_grad()
@pytest.mark.parametrize(
    ("case", "stock"), [("llama", False), ("mistral", True), ("qwen2", True), ("qwen3", True)]
)
def test_a_number_of_heads_that_does_not_divide_the_width(case, stock, tmp_path):
    specimen = ZOO[case]
    settings = specimen.settings | {"num_key_value_heads": 4}
    model = Specimen(specimen.config, settings, ()).build().double()
    zero_(model, KINDS["alike"])
    smaller, report = shrink(model)
    assert (report.stock, "architecture refuses it" in report.reason) == (stock, not stock)
    save(smaller, tmp_path / "out")
    loaded = load(tmp_path / "out")
    assert loaded.config.num_key_value_heads == (3 if stock else 4)
    same(loaded(**specimen.inputs()).logits, model(**specimen.inputs()).logits)


@torch.no_grad()
@pytest.mark.parametrize(("activation", "folded"), [("sigmoid", 3), ("gelu_new", 0)])
def test_what_an_activation_makes_of_zero_is_not_forgotten(activation, folded):
    model = Specimen("BertConfig", TEXT | {"hidden_act": activation}, ()).build().double()
    zero_(
        model,
        lambda n, s: [5] if s.unit == "neuron" else [],
        lambda holds: holds == ("ffn_in",),
    )
    smaller, report = shrink(model)
    assert (report.removed, report.folded) == (3, folded)
    inputs = ZOO["bert"].inputs()
    same(smaller(**inputs).logits, model(**inputs).logits)


def test_with_an_activation_of_its_own_parameters_only_unread_neurons_go():
    model = Specimen("BertConfig", TEXT | {"hidden_act": "prelu"}, ()).build()
    zero_(model, lambda n, s: [5] if s.unit == "neuron" else [], lambda holds: holds != ("out",))
    assert shrink(model)[1].removed == 0
    zero_(model, lambda n, s: [5] if s.unit == "neuron" else [])
    assert shrink(model)[1].removed == 3


def test_weights_that_are_zero_one_by_one_stay():
    model = ZOO["bert"].build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[torch.rand_like(parameter) < 0.5] = 0
    smaller, report = shrink(model)
    assert smaller is model and report.removed == 0 and report.stock and not report.reason


# ---------------------------------------------------------------------- tables that blocks share


@torch.no_grad()
def test_t5_blocks_that_keep_other_heads_are_no_stock_model_until_they_keep_the_same():
    specimen = ZOO["t5"]
    model, inputs = specimen.build().double(), specimen.inputs()
    zero_(model, lambda n, s: [s.layer] if s.unit == "head" else [])
    first, report = shrink(model)
    assert not report.stock and "keep different heads" in report.reason
    zero_(model, lambda n, s: range(3) if s.unit == "head" else [])
    # Numbers of the heads that are left: heads 0, 1 and 2 are zero in all blocks now.
    zero_(first, lambda n, s: range(2) if s.unit == "head" else [])
    for smaller, report in (shrink(model), shrink(first)):
        assert report.stock and smaller.config.num_heads == 1
        assert smaller.transformer.decoder.block[0].layer[
            0
        ].SelfAttention.relative_attention_bias.weight.shape == (8, 1)
        same(smaller(**inputs).logits, model(**inputs).logits)


def test_what_cannot_be_shrunk_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="several layers share one set of weights"):
        shrink(ZOO["albert"].build())
    model = ZOO["bert"].build()
    with pytest.raises(ValueError, match="a DataParallel cannot be shrunk"):
        shrink(nn.DataParallel(model))
    model.bert.encoder.layer[1].intermediate = model.bert.encoder.layer[0].intermediate
    with pytest.raises(ValueError, match=r"layer\.0\.intermediate\.dense\.weight is shared"):
        shrink(model)
    unknown = Specimen("OpenAIGPTConfig", {"n_embd": 8, "n_layer": 1, "n_head": 2}, ()).build()
    with pytest.raises(ValueError, match="openai-gpt belongs to no known family"):
        shrink(unknown)
    with pytest.raises(ValueError, match="on the meta device"):
        shrink(ZOO["bert"].build().to("meta"))
