"""Heads and neurons under a latent mask, beside models in which a gate multiplies each of them.

A gate there is a parameter of one entry a unit, on the input of the matrix that reads the units;
every gradient is autograd's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import sentei
from helpers.gated import STEPS, StraightThrough, linear
from helpers.zoo import ZOO
from sentei.parts import Learned


class Recorded(Learned):
    """Learned scores that leave behind the gradients they were trained on."""

    kind: Literal["recorded"] = "recorded"
    seen: ClassVar[list[torch.Tensor]] = []

    def learn_(self, memory, gradient, progress):
        self.seen.append(gradient.clone())
        super().learn_(memory, gradient, progress)


@dataclass(frozen=True)
class Case:
    """A model, its pattern, and by place the matrix that reads so many units there."""

    specimen: str
    pattern: str
    units: int
    place: str
    reader: str


CASES = {
    "heads": Case("bert", "head", 4, "bert.encoder.layer.{}.attention", "output.dense"),
    "neurons": Case("bert", "neuron", 24, "bert.encoder.layer.{}", "output.dense"),
    "stored (in, out)": Case("gpt2", "head", 4, "transformer.h.{}.attn", "c_proj"),
    "query groups": Case("llama", "head", 2, "model.layers.{}.self_attn", "o_proj"),
    "gated neurons": Case("llama", "neuron", 24, "model.layers.{}.mlp", "down_proj"),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def trained_on(model, step, optimizer):
    """One step of AdamW on a batch of its own."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(5, 40, (6, 7), generator=generator)
    for part, labels in zip(ids.chunk(2), (ids[:, 0] % 2).chunk(2), strict=True):
        logits = model(input_ids=part, attention_mask=torch.ones_like(part)).logits
        (nn.functional.cross_entropy(logits, labels) / 2).backward()
    optimizer.step()


def build(case: Case) -> nn.Module:
    model = ZOO[case.specimen].build().double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    return model


class Sentei:
    """The model pruned by a recipe; the gradients of its units' scores, place by place."""

    def __init__(self, case: Case, recipe: sentei.Recipe) -> None:
        if recipe.score.learned:
            score = recipe.score
            recorded = Recorded(initial=score.initial, optimizer=score.optimizer)
            recipe = recipe.model_copy(update={"score": recorded})
        self.case, self.model = case, build(case)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.pruner = sentei.Pruner(self.model, recipe, total_steps=STEPS)
        self.pruner.attach(self.optimizer)
        self.t = 0

    def units(self, name: str) -> list[torch.Tensor]:
        units = self.pruner.state_dict()["units"]
        assert len(units) == 3
        return [one[name].clone() for one in units.values()]

    def step(self) -> list[torch.Tensor]:
        Recorded.seen.clear()
        trained_on(self.model, self.t, self.optimizer)
        self.optimizer.zero_grad()
        self.t += 1
        return list(Recorded.seen)


Gate = Callable[[nn.Parameter, nn.Parameter, int], torch.Tensor]


class Reference:
    """The same model with a gate on each unit."""

    def __init__(self, case: Case, gate: Gate, *, score_lr, initial=0.0, sigma=0.0, sigma_lr=0.0):
        self.model = build(case)
        own = list(self.model.parameters())
        start = torch.full((case.units,), initial, dtype=torch.float64)
        self.scores = [nn.Parameter(start.clone()) for _ in range(3)]
        self.sigmas = [nn.Parameter(torch.tensor(sigma, dtype=torch.float64)) for _ in range(3)]
        for layer, (score, sigma) in enumerate(zip(self.scores, self.sigmas, strict=True)):
            reader = self.model.get_submodule(case.place.format(layer) + "." + case.reader)

            def multiply(module, args, score=score, sigma=sigma, layer=layer):
                width = args[0].shape[-1] // case.units
                return (args[0] * gate(score, sigma, layer).repeat_interleave(width),)

            reader.register_forward_pre_hook(multiply)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": own, "lr": 1e-3},
                {"params": self.scores, "lr": score_lr, "weight_decay": 0.0},
                {"params": self.sigmas, "lr": sigma_lr, "weight_decay": 0.0},
            ]
        )
        rise_and_fall = linear(6)
        self.schedule = LambdaLR(self.optimizer, [lambda t: 1.0, rise_and_fall, rise_and_fall])
        self.t = 0

    def step(self) -> list[torch.Tensor]:
        trained_on(self.model, self.t, self.optimizer)
        gradients = [score.grad.clone() for score in self.scores]
        self.schedule.step()
        self.optimizer.zero_grad()
        self.t += 1
        return gradients


def agree(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            a, b.detach(), rtol=1e-11, atol=1e-12 * float(b.detach().abs().max())
        )


def same_weights(run: Sentei, reference: Reference, gates: list[torch.Tensor]) -> None:
    """Latent weights agree, and what is saved is they with each gate once, on what reads."""
    memory, saved = run.pruner.state_dict()["memory"], run.model.state_dict()
    for name, weight in reference.model.named_parameters():
        if name not in memory:
            torch.testing.assert_close(saved[name], weight.detach(), rtol=0, atol=1e-12)
            continue
        latent, keep = memory[name]["latent"], run.pruner.masks[name]
        torch.testing.assert_close(latent, weight.detach(), rtol=0, atol=1e-12)
        layer = next(int(part) for part in name.split(".") if part.isdecimal())
        expected = latent * keep
        if name == f"{run.case.place.format(layer)}.{run.case.reader}.weight":
            dim = 0 if run.case.specimen == "gpt2" else 1
            gate = gates[layer].repeat_interleave(latent.shape[dim] // run.case.units)
            expected = latent * (gate if dim else gate[:, None])
            assert torch.equal(keep, (expected != 0) | (latent == 0))
        torch.testing.assert_close(saved[name], expected, rtol=0, atol=1e-14)


@cases
def test_movement(case):
    recipe = sentei.movement(
        0.5, score_lr=0.05, push=0.0, warmup=0.0, cooldown=0.5, pattern=case.pattern
    )
    run = Sentei(case, recipe)
    keeps: list[torch.Tensor] = []
    reference = Reference(
        case,
        lambda score, sigma, layer: StraightThrough.apply(score, sigma, keeps[layer].double()),
        score_lr=0.05,
    )
    alive, revived = [], 0
    for _ in range(STEPS):
        keeps[:] = run.units("keep")
        gradients = run.step()
        agree(gradients, reference.step())
        agree(run.units("score"), reference.scores)
        for keep, gradient in zip(keeps, gradients, strict=True):
            if not keep.all():
                alive.append(float(gradient[~keep].abs().mean() / gradient[keep].abs().mean()))
        revived += sum(int((~a & b).sum()) for a, b in zip(keeps, run.units("keep"), strict=True))
        same_weights(run, reference, [keep.double() for keep in run.units("keep")])
    assert sum(alive) / len(alive) > 0.3, "gradients of pruned over those of kept"
    assert revived
    assert run.pruner.sparsity == 0.5


@cases
@pytest.mark.parametrize("score", ["learned", "magnitude"])
def test_leap(case, score):
    recipe = sentei.leap(
        0.6,
        score=score,
        score_lr=0.05,
        ratio_lr=0.5,
        ratio_beta2=0.999,
        ratio_warmup=0.1,
        push=0.0,
        temperature=1.0,
        initial=3.0,
        settle=None,
        pattern=case.pattern,
    )
    run = Sentei(case, recipe)
    keeps: list[torch.Tensor] = []
    reference = Reference(
        case,
        lambda score, sigma, layer: StraightThrough.apply(score, sigma, keeps[layer].double()),
        score_lr=0.05,
        sigma=3.0,
        sigma_lr=0.5,
    )
    pruned = 0
    for _ in range(STEPS):
        keeps[:] = run.units("keep")
        gradients = run.step()
        remaining = sum(torch.sigmoid(sigma) for sigma in reference.sigmas) / 3
        if remaining > 0.4:
            loss = (remaining - 0.4) ** 2
            (max(160 * loss.item() / 0.36, 10.0) * loss).backward()
        theirs = reference.step()
        if score == "learned":
            agree(gradients, theirs)
        sigmas = run.pruner.state_dict()["budget"]["sigma"]
        agree([sigmas], [torch.stack(reference.sigmas)])
        same_weights(run, reference, [keep.double() for keep in run.units("keep")])
        pruned = max(pruned, run.pruner.pruned)
    assert pruned


@cases
def test_l0(case):
    recipe = sentei.l0(
        0.5, score_lr=0.3, coefficient=0.0, initial=0.0, follow=False, settle=None,
        pattern=case.pattern,
    )  # fmt: skip
    run = Sentei(case, recipe)
    noise: list[torch.Tensor] = []

    def gate(score, sigma, layer=None):
        return torch.clamp(torch.sigmoid(score) * 1.2 - 0.1, min=0.0, max=1.0)

    reference = Reference(
        case,
        lambda score, sigma, layer: gate((score + noise[layer]) / (2 / 3), sigma),
        score_lr=0.3,
    )
    between = 0
    for _ in range(STEPS):
        noise[:] = run.units("noise")
        agree(run.step(), reference.step())
        agree(run.units("score"), reference.scores)
        gates = [gate(score.detach(), None) for score in reference.scores]
        same_weights(run, reference, gates)
        between += sum(int(((one > 0) & (one < 1)).sum()) for one in gates)
    assert between


@pytest.mark.parametrize("name", [name for name in ZOO if name != "albert"])  # shared layers
def test_training_computes_what_the_pruned_model_does(name):
    """With dense producers the zeros of what reads them make the function the pruned model's."""
    model = ZOO[name].build().double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    recipe = sentei.movement(0.5, warmup=0.0, pattern="head+neuron")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    pruner = sentei.Pruner(model, recipe, total_steps=4)
    pruner.attach(optimizer)
    inputs = ZOO[name].inputs()
    for _ in range(3):
        model(**inputs).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    copied = copy.deepcopy(model)
    saved = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert pruner.pruned
    with torch.no_grad():
        torch.manual_seed(0)  # of dropout that is no module
        outputs = model(**inputs).logits
        torch.manual_seed(0)
        plain = copied(**inputs).logits
    dense = {n: p for n, p in model.named_parameters() if not torch.equal(p, saved[n])}
    assert dense, "producers are dense in a training forward pass"
    torch.testing.assert_close(outputs, plain, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(tensor, saved[key]) for key, tensor in model.state_dict().items())


RECIPES = {
    "movement": sentei.movement,
    "soft_movement": sentei.soft_movement,
    "l0": sentei.l0,
    "leap": sentei.leap,
    "leap of magnitudes": lambda *args, **more: sentei.leap(*args, score="magnitude", **more),
}


@pytest.mark.parametrize("pattern", ["head+neuron", "head+4x4"])
@pytest.mark.parametrize("method", RECIPES.values(), ids=RECIPES.keys())
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_between_forward_and_backward_the_sparse_model_is_saved_and_counted(method, pattern):
    case, gradients = CASES["heads"], []
    for looks in (False, True):
        run = Sentei(case, method(0.5, pattern=pattern))
        for _ in range(STEPS - 2):
            run.step()
        rest = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        assert all(torch.equal(p, rest[name]) for name, p in run.model.named_parameters())
        sparsity, state = run.pruner.sparsity, copy.deepcopy(run.pruner.state_dict())
        assert sparsity == run.pruner.pruned / run.pruner.prunable > 0.4
        loss = run.model(input_ids=torch.full((2, 5), 7)).logits.square().mean()
        if looks:
            masks = run.pruner.masks
            key = "bert.encoder.layer.0.attention.self.value.weight"
            held = run.model.get_parameter(key).detach()
            assert not masks[key].all()
            assert torch.equal(held, state["memory"][key]["latent"])
            for name, keep in masks.items():
                assert (run.model.state_dict()[name][~keep] == 0).all()
            assert all(torch.equal(one, rest[name]) for name, one in run.model.state_dict().items())
            assert run.pruner.sparsity == sparsity
            assert run.pruner.state_dict()["weights"] == state["weights"]
        loss.backward()
        gradients.append([p.grad for p in run.model.parameters() if p.grad is not None])
        run.model.eval()(input_ids=torch.full((2, 5), 7))
        assert all(torch.equal(p, rest[name]) for name, p in run.model.named_parameters())
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_gradient_of_a_pruned_units_latent_weights_is_zero():
    """Also where a term of the loss reads the unit past its gate, as one on attention maps."""
    case = CASES["neurons"]
    run = Sentei(case, sentei.movement(0.5, warmup=0.0, pattern="neuron"))
    run.optimizer.param_groups[0].update(lr=0.0, weight_decay=0.0)
    for _ in range(30):
        run.step()
    produced = []
    part = run.model.bert.encoder.layer[1].intermediate.dense
    part.register_forward_hook(lambda module, args, output: produced.append(output))
    run.model(input_ids=torch.full((2, 5), 7))
    produced[0].square().sum().backward()
    for name, parameter in run.model.named_parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if parameter is part.weight:
            keep = run.pruner.masks[name]
            assert (parameter.grad[~keep] != 0).any() and not keep.all()
    run.optimizer.step()
    assert (part.weight.grad[~keep] == 0).all() and (part.weight.grad[keep] != 0).all()


@pytest.mark.parametrize("pattern", ["head", "neuron"])
def test_an_evaluation_between_forward_and_backward_changes_nothing(pattern):
    """It writes zeros over what is dense in training, which no gradient comes through."""
    found = []
    for looked in (False, True):
        run = Sentei(CASES["heads"], sentei.movement(0.5, warmup=0.0, pattern=pattern))
        inputs = torch.randint(1, 30, (8, 4, 5), generator=torch.Generator().manual_seed(0))
        for ids in inputs:
            run.model.train()
            loss = run.model(input_ids=ids).logits.square().mean()
            if looked:
                with torch.no_grad():
                    run.model.eval()(input_ids=ids)
            loss.backward()
            run.optimizer.step()
            run.optimizer.zero_grad()
        assert 0 < run.pruner.pruned
        found.append([parameter.detach().clone() for parameter in run.model.parameters()])
    assert all(map(torch.equal, *found))
