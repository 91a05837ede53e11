"""What belongs to a head or a neuron, held to what models compute."""

from collections import defaultdict

import pytest
import torch
from torch import nn

from helpers.zoo import LAYERS, TEXT, ZOO, Specimen
from sentei import families
from sentei.families import Family, Heads, Neurons, Slice, Structure, structures
from sentei.parts.scope import Scope

DIVIDED = [case for case in ZOO if case != "albert"]


def of(model: nn.Module) -> tuple[Structure, ...]:
    family = families.find(model.config.model_type)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    return structures(family, model.config.to_dict(), shapes)


def entries(model: nn.Module, part: Slice, unit: int) -> torch.Tensor:
    parameter = model.get_parameter(part.parameter)
    return parameter.narrow(part.dim, part.offset + unit * part.width, part.width)


@torch.no_grad()
@pytest.mark.parametrize("case", DIVIDED)
def test_what_a_unit_owns_is_idle_once_nothing_reads_the_unit(case):
    """Rows matched to the columns of another head, or of another matrix, would show."""
    model = ZOO[case].build().double()
    inputs = ZOO[case].inputs()
    before = model(**inputs).logits
    chosen = [(found, number % found.units) for number, found in enumerate(of(model), start=1)]

    for found, unit in chosen:
        *_, out = found.weights
        assert out.holds == ("out",)
        entries(model, out, unit).zero_()
    unread = model(**inputs).logits
    assert (unread - before).abs().max() > 1e-6

    for found, unit in chosen:
        for part in (*found.weights, *found.biases):
            entries(model, part, unit).normal_()
        entries(model, found.weights[-1], unit).zero_()
    torch.testing.assert_close(model(**inputs).logits, unread, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", DIVIDED)
def test_units_divide_their_parameters_without_rest_or_overlap(case):
    model = ZOO[case].build()
    found = of(model)
    owned = defaultdict(list)
    for structure in found:
        for part in (*structure.weights, *structure.biases):
            stop = part.offset + structure.units * part.width
            owned[part.parameter, part.dim].append((part.offset, stop))
    for (parameter, dim), spans in owned.items():
        starts, stops = zip(*sorted(spans), strict=True)
        assert (0, *stops) == (*starts, model.get_parameter(parameter).shape[dim])

    matrices = {part.parameter for structure in found for part in structure.weights}
    assert matrices == {site.name for site in Scope().resolve(model).sites}
    stacks = len(ZOO[case].stacks)
    attentions = LAYERS * sum(1 + ("cross_out" in roles) for roles in ZOO[case].stacks)
    assert [s.unit for s in found].count("head") == attentions
    assert [s.unit for s in found].count("neuron") == LAYERS * stacks
    assert len({(s.unit, s.name) for s in found}) == len(found)


def test_bert_in_full():
    first, second, *_ = of(ZOO["bert"].build())
    block = "bert.encoder.layer.0"
    assert first == Structure(
        unit="head",
        name=f"{block}.attention",
        layer=0,
        units=4,
        weights=(
            Slice(f"{block}.attention.self.query.weight", 0, 0, 8),
            Slice(f"{block}.attention.self.key.weight", 0, 0, 8),
            Slice(f"{block}.attention.self.value.weight", 0, 0, 8),
            Slice(f"{block}.attention.output.dense.weight", 1, 0, 8),
        ),
        biases=(
            Slice(f"{block}.attention.self.query.bias", 0, 0, 8),
            Slice(f"{block}.attention.self.key.bias", 0, 0, 8),
            Slice(f"{block}.attention.self.value.bias", 0, 0, 8),
        ),
    )
    assert (second.unit, second.name, second.units) == ("neuron", block, 24)


def test_heads_that_share_a_key_and_value_are_one_unit():
    attention, mlp, *_ = of(ZOO["llama"].build())
    widths = {part.holds[0]: part.width for part in attention.weights}
    assert attention.units == 2
    assert widths == {"query": 16, "key": 8, "value": 8, "out": 16}
    assert [part.holds[0] for part in mlp.weights] == ["ffn_in", "ffn_gate", "out"]


def test_gpt2_has_its_units_along_the_other_dimension():
    attention, _, *_ = of(ZOO["gpt2"].build())
    assert [(p.dim, p.offset, p.holds) for p in attention.weights] == [
        (1, 0, ("query",)),
        (1, 32, ("key",)),
        (1, 64, ("value",)),
        (0, 0, ("out",)),
    ]


def test_decoders_with_cross_attention():
    settings = ZOO["gpt2"].settings | {"add_cross_attention": True}
    model = Specimen("GPT2Config", settings, ()).build("GPT2LMHeadModel")
    names = [structure.name for structure in of(model)[:3]]
    assert names == [f"transformer.h.0.{part}" for part in ("attn", "crossattention", "mlp")]


def test_refusals_name_the_place_and_the_reason():
    with pytest.raises(ValueError, match=r"family albert .*several layers share one set"):
        of(ZOO["albert"].build())

    mixed = Specimen("DebertaConfig", TEXT | {"talking_head": True}, ()).build()
    with pytest.raises(ValueError, match=r"layer\.0\.attention\.self\.head_logits_proj mixes"):
        of(mixed)

    model = ZOO["bert"].build()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    config, bert = model.config.to_dict(), families.find("bert")
    with pytest.raises(ValueError, match=r"no parameter lies in a block layers\.\{i\}; found bert"):
        structures(families.find("llama"), config, shapes)

    value = "bert.encoder.layer.1.attention.self.value.weight"
    with pytest.raises(ValueError, match=r"value\.weight: .*\(30, 32\) .* heads of size 8"):
        structures(bert, config, shapes | {value: (30, 32)})
    with pytest.raises(ValueError, match=r"output\.dense\.weight: .*does not fit the 3 units of 8"):
        fewer = {name: (24, *shape[1:]) for name, shape in shapes.items() if ".self." in name}
        wider = {name: (32, 48) for name in shapes if "attention.output.dense.weight" in name}
        structures(bert, config, shapes | fewer | wider)
    with pytest.raises(ValueError, match=r"layer\.1 has no attention\.self\.value\.weight"):
        structures(bert, config, {name: s for name, s in shapes.items() if name != value})


def test_a_new_family_takes_a_few_lines():
    family = Family(
        name="mine",
        model_types=("mine",),
        block="blocks.{i}",
        roles={
            "query": "att.q",
            "key": "att.k",
            "value": "att.v",
            "attention_out": "att.o",
            "ffn_in": "up",
            "ffn_out": "down",
        },
        heads=(Heads(module="att", count="heads", hidden="width"),),
        neurons=(Neurons(),),
    )
    shapes = {f"blocks.0.att.{m}.weight": (12, 12) for m in "qkvo"}
    shapes |= {"blocks.0.up.weight": (20, 12), "blocks.0.down.weight": (12, 20)}
    heads, neurons = structures(family, {"heads": 3, "width": 12}, shapes)
    assert (heads.name, heads.units) == ("blocks.0.att", 3)
    assert (neurons.name, neurons.units) == ("blocks.0", 20)
