"""PLATON against its formulas by hand, and against a second, plain implementation of its code."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils import clip_grad_norm_
from transformers import BertConfig, BertForSequenceClassification

import sentei
from sentei.methods.platon import Uncertainty
from sentei.parts.schedule import Cubic

STEPS, WARMUP, COOLDOWN = 200, 20, 80
LEARNING_RATE = 5e-3  # high, so that many pruned weights come back
PRUNED_LAYERS = ("attention.self", "attention.output.dense", "intermediate.dense", "output.dense")


def classifier() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=100,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config).double()


def batches(steps: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "input_ids": torch.randint(0, 100, (4, 6), generator=generator),
            "labels": torch.randint(0, 2, (4,), generator=generator),
        }
        for _ in range(steps)
    ]


class Authors:
    """The algorithm as the authors wrote it: dicts of tensors, one concatenation, one sort."""

    def __init__(self, model, sparsity, *, delta, old, biases, compat):
        self.delta, self.old, self.compat = delta, old, compat
        self.ratio = 1 - sparsity
        self.weights = {
            name: p
            for name, p in model.named_parameters()
            if any(layer in name for layer in PRUNED_LAYERS)
            and "LayerNorm" not in name
            and (biases or name.endswith(".weight"))
        }
        self.window, self.importance, self.uncertainty = (
            {name: torch.zeros_like(p) for name, p in self.weights.items()} for _ in range(3)
        )
        self.masks = {name: torch.ones_like(p) > 0 for name, p in self.weights.items()}
        self.revived = self.just_zeroed = 0
        self.signals_of_just_zeroed = []

    def remaining(self, t):
        if t <= WARMUP:
            return 1.0, False
        if t > STEPS - COOLDOWN:
            return self.ratio, True
        left = 1 - (t - WARMUP) / (STEPS - WARMUP - COOLDOWN)
        return self.ratio + (1 - self.ratio) * left**3, t % self.delta == 0

    def score(self, t):
        for name, p in self.weights.items():
            signal = (p * p.grad).abs()
            if t - 1 > STEPS - COOLDOWN:
                self.signals_of_just_zeroed.append(signal[~self.masks[name]])
            place = t % self.delta
            if place == 0:
                mean, beta1, beta2 = self.window[name], 0.85, 0.95
                smooth = beta1 * self.importance[name] + (1 - beta1) * mean
                local = (mean - smooth).abs()
                self.uncertainty[name] = beta2 * self.uncertainty[name] + (1 - beta2) * local
                self.importance[name], self.window[name] = smooth, signal
            else:
                self.window[name] = (place * self.window[name] + signal) / (place + 1)

    def prune(self, ratio):
        scores = [(self.importance[n] * self.uncertainty[n]).flatten() for n in self.weights]
        everything = torch.cat(scores)
        if self.compat:
            lowest = torch.zeros_like(everything, dtype=torch.bool)
            if k := int(everything.numel() * (1 - ratio)):
                lowest = everything < torch.kthvalue(everything, k).values
        else:
            order = torch.sort(everything, stable=True).indices
            lowest = torch.zeros_like(everything, dtype=torch.bool)
            lowest[order[: round(everything.numel() * (1 - ratio))]] = True
        kept = (~lowest).split([s.numel() for s in scores])
        for (name, p), keep in zip(self.weights.items(), kept, strict=True):
            keep = keep.view_as(p)
            self.revived += int((keep & ~self.masks[name]).sum())
            self.masks[name] = keep
            p.masked_fill_(~keep, 0.0)

    def step(self, t, optimizer):
        with torch.no_grad():
            if self.old:
                self.score(t)
            optimizer.step()
            if not self.old:
                self.score(t)
            ratio, prune = self.remaining(t)
            if prune:
                self.prune(ratio)


@pytest.mark.parametrize(
    ("iterate", "delta", "as_authors"),
    [
        ("new", 10, False),
        ("old", 10, False),
        ("new", 1, False),
        ("old", 1, False),
        ("new", 10, True),
    ],
)
def test_two_implementations_agree_at_every_step(iterate, delta, as_authors):
    sparsity = 0.8
    one, other = classifier(), classifier()
    recipe = sentei.platon(
        sparsity,
        window=delta,
        every=delta,
        iterate=iterate,
        warmup=WARMUP / STEPS,
        cooldown=COOLDOWN / STEPS,
        biases=as_authors,
        compat=as_authors,
    )
    pruner = sentei.Pruner(one, recipe, total_steps=STEPS)
    optimizers = [torch.optim.AdamW(m.parameters(), lr=LEARNING_RATE) for m in (one, other)]
    pruner.attach(optimizers[0])
    authors = Authors(
        other,
        sparsity,
        delta=delta,
        old=iterate == "old",
        biases=as_authors,
        compat=as_authors,
    )
    assert authors.weights.keys() == pruner.masks.keys()
    for t, batch in enumerate(batches(STEPS), start=1):
        for model in (one, other):
            model.zero_grad()
            model(**batch).loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
        optimizers[0].step()
        authors.step(t, optimizers[1])
        assert all(torch.equal(mask, authors.masks[n]) for n, mask in pruner.masks.items()), t
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b), t
    memory = pruner.state_dict()["memory"]
    for name in authors.weights:
        for ours, theirs in (
            ("window", authors.window),
            ("importance", authors.importance),
            ("uncertainty", authors.uncertainty),
        ):
            torch.testing.assert_close(memory[name][ours], theirs[name], rtol=1e-10, atol=1e-30)

    assert authors.revived > 20
    # A weight zeroed at the last step of the cool-down has signal 0 where the gradient was taken,
    # but not one optimizer step later (but for neurons that nothing reads any more).
    signals = torch.cat(authors.signals_of_just_zeroed)
    alive = torch.count_nonzero(signals) / signals.numel()
    assert alive == 0 if iterate == "old" else alive > 0.3

    report = pruner.finish()
    exact = pruner.prunable * sparsity
    assert report.pruned == (int(exact) - 1 if as_authors else round(exact))


@pytest.mark.parametrize("iterate", ["old", "new"])
def test_just_zeroed_weights_in_the_cool_down(iterate):
    """The same property, of the pruner's own memory."""
    model = classifier()
    recipe = sentei.platon(0.5, window=1, every=1, iterate=iterate)
    pruner = sentei.Pruner(model, recipe, total_steps=20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    pruner.attach(optimizer)
    for t, batch in enumerate(batches(20), start=1):
        zeroed = {name: ~mask for name, mask in pruner.masks.items()}
        model.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        if t > 13:
            memory = pruner.state_dict()["memory"]
            signals = torch.cat([memory[name]["window"][where] for name, where in zeroed.items()])
            assert signals.numel() == round(pruner.prunable * 0.5)
            alive = torch.count_nonzero(signals) / signals.numel()
            assert alive == 0 if iterate == "old" else alive > 0.3


def test_score_by_hand():
    score = Uncertainty(window=2, beta1=0.5, beta2=0.5)
    memory = {name: torch.zeros(1, dtype=torch.float64) for name in score.memory}
    # After each step: window mean, smoothed importance, smoothed uncertainty, score.
    expected = [
        (0.5, 0.0, 0.0, 0.0),
        (3.0, 0.25, 0.125, 0.03125),
        (2.5, 0.25, 0.125, 0.03125),
        (4.0, 1.375, 0.625, 0.859375),
    ]
    scratch = torch.zeros(1, dtype=torch.float64)
    for step, (signal, numbers) in enumerate(zip([1.0, 3.0, 2.0, 4.0], expected, strict=True), 1):
        weight = torch.tensor([-2.0], dtype=torch.float64)
        gradient = torch.tensor([signal / 2], dtype=torch.float64)
        score.observe_(memory, weight, gradient, step, scratch)
        value = score.value(memory, weight, scratch)
        found = (*(memory[name].item() for name in score.memory), value.item())
        assert found == numbers, step


def test_cubic_reference_values():
    schedule = Cubic(sparsity=0.9, warmup=0.1, cooldown=0.4)
    kept = [1 - schedule.at(100 + round(500 * x), 1000) for x in (0, 0.1, 0.25, 0.5, 0.75, 1)]
    assert kept == pytest.approx([1.0, 0.7561, 0.4797, 0.2125, 0.1141, 0.1], abs=5e-5)
    assert [1 - schedule.at(step, 1000) for step in (1, 99, 601, 1000)] == pytest.approx(
        [1.0, 1.0, 0.1, 0.1]
    )


@pytest.mark.parametrize(("compat", "pruned"), [(True, 0), (False, 8)])
def test_when_too_many_scores_are_zero_the_authors_prune_nothing(compat, pruned):
    """Ten of sixteen weights never see an input, so at least k = 8 scores are exactly 0."""
    model = torch.nn.Linear(8, 2, bias=False)
    x = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe = sentei.platon(0.5, window=2, every=2, compat=compat, scope={"include": ["weight"]})
    pruner = sentei.Pruner(model, recipe, total_steps=20)
    pruner.attach(optimizer)
    for _ in range(20):
        optimizer.zero_grad()
        (model(x) - 1).square().sum().backward()
        optimizer.step()
    assert pruner.updates[-1].pruned == pruned
    assert pruner.finish().pruned == pruned


def test_biases_of_the_same_layers_are_ranked_with_the_weights():
    model = classifier()
    weights = {site.name for site in sentei.platon().scope.resolve(model).sites}
    pruner = sentei.Pruner(
        model, sentei.platon(0.8, biases=True, warmup=0, every=10), total_steps=20
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    pruner.attach(optimizer)
    assert pruner.masks.keys() == weights | {n.replace(".weight", ".bias") for n in weights}
    for batch in batches(20):
        model.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    pruned = {name: int((~mask).sum()) for name, mask in pruner.masks.items()}
    biases = sum(count for name, count in pruned.items() if name.endswith(".bias"))
    everything = sum(pruner.masks[n].numel() for n in pruned if n.endswith(".bias"))
    assert sum(pruned.values()) == round(0.8 * pruner.prunable)
    assert 0 < biases < everything and biases != round(0.8 * everything)


def test_micro_batches_score_the_accumulated_gradient():
    model = classifier()
    pruner = sentei.Pruner(model, sentei.platon(0.5, window=1, every=1), total_steps=20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    pruner.attach(optimizer)
    data, weights = iter(batches(60)), dict(model.named_parameters())
    for step in range(1, 21):
        gradients = dict.fromkeys(pruner.masks, 0)
        for _ in range(3):
            loss = model(**next(data)).loss / 3
            parts = torch.autograd.grad(loss, [weights[n] for n in gradients], retain_graph=True)
            gradients = {n: gradients[n] + g for n, g in zip(gradients, parts, strict=True)}
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert pruner.step == step
        memory = pruner.state_dict()["memory"]
        for name, gradient in gradients.items():
            kept = pruner.masks[name]  # elsewhere the weight that was scored is gone
            signal = (weights[name].detach() * gradient).abs()[kept]
            torch.testing.assert_close(memory[name]["window"][kept], signal, rtol=1e-9, atol=1e-18)
