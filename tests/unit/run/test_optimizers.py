"""Optimizers and learning rates beside their formulas, worked out number by number in float64."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from transformers import get_scheduler

from sentei.run.optimizers import BertAdam, BertAdamax, optimizer_of, schedule_of
from sentei.run.settings import Training

GRADIENTS = [[3e-3, -2e-7, 0.0], [-1e-3, 4e-7, 0.0], [5e-3, 0.0, 2e-6], [1e-4, -1e-6, 0.0]]
RATES = [0.0, 1e-2, 2e-2, 1e-2]
START = [0.5, -1.0, 0.25]


def bert_adam(m, v, g, w, *, rate, beta1, beta2, epsilon, decay):
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return m, v, w - rate * (m / (math.sqrt(v) + epsilon) + decay * w)


def bert_adamax(m, u, g, w, *, rate, beta1, beta2, epsilon, decay):
    m, u = beta1 * m + (1 - beta1) * g, max(beta2 * u, abs(g) + epsilon)
    return m, u, w - rate * (m / (u + epsilon) + decay * w)


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize(
    ("kind", "formula"), [(BertAdam, bert_adam), (BertAdamax, bert_adamax)], ids=["adam", "adamax"]
)
def test_steps_are_the_formulas(kind, formula, decay):
    numbers = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6, "decay": decay}
    expected = [(0.0, 0.0, w) for w in START]
    weight = nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = kind([weight], lr=1.0, betas=(0.8, 0.95), eps=1e-6, weight_decay=decay)
    for gradient, rate in zip(GRADIENTS, RATES, strict=True):
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        expected = [
            formula(m, v, g, w, rate=rate, **numbers)
            for (m, v, w), g in zip(expected, gradient, strict=True)
        ]
        wanted = torch.tensor([w for _, _, w in expected], dtype=torch.float64)
        torch.testing.assert_close(weight.detach(), wanted, rtol=1e-14, atol=0)


def first_step(kind, **numbers) -> float:
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    weight.grad = torch.ones_like(weight)
    kind([weight], lr=1.0, eps=1e-12, **numbers).step()
    return -weight.item()


def test_the_first_step_is_not_corrected():
    """3.2 times Adam's, a tenth of Adamax's."""
    assert first_step(torch.optim.Adam) == pytest.approx(1)
    assert first_step(BertAdam) == pytest.approx(math.sqrt(10))
    assert first_step(torch.optim.Adamax) == pytest.approx(1)
    assert first_step(BertAdamax) == pytest.approx(0.1)


def test_sparseberts_clipping_inside_the_step_is_clipping_each_before_it():
    """Its class clips every parameter's gradient as its turn comes; one step moves none other."""
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(4, dtype=torch.float64)) for _ in range(2)]
    theirs = [weight.detach().clone() for weight in ours]
    optimizer = BertAdam(ours, lr=1e-2, eps=1e-6, weight_decay=0.01)
    averages = [(torch.zeros(4).double(), torch.zeros(4).double()) for _ in ours]
    for _ in range(5):
        for i, weight in enumerate(ours):
            weight.grad = torch.randn(4, dtype=torch.float64) * 10**i
            g = weight.grad * min(1.0, 1.0 / (weight.grad.norm().item() + 1e-6))
            m, v = averages[i]
            m.copy_(0.9 * m + 0.1 * g)
            v.copy_(0.999 * v + 0.001 * g * g)
            theirs[i] -= 1e-2 * (m / (v.sqrt() + 1e-6) + 0.01 * theirs[i])
        for weight in ours:
            clip_grad_norm_(weight, 1.0)
        optimizer.step()
    for weight, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(weight.detach(), wanted, rtol=1e-13, atol=0)


def test_composers_decoupled_adamw_without_decay_is_torchs():
    """MGPP's scripts pass no weight decay: what is decoupled from the rate there is 0."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(50, dtype=torch.float64, generator=generator))
    wanted, m, v = weight.detach().clone(), torch.zeros(50).double(), torch.zeros(50).double()
    optimizer = torch.optim.AdamW([weight], lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0)
    for step in range(1, 8):
        weight.grad = g = torch.randn(50, dtype=torch.float64, generator=generator)
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
        wanted -= 1e-2 / (1 - 0.9**step) * m / (v.sqrt() / math.sqrt(1 - 0.98**step) + 1e-6)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [BertAdam, BertAdamax])
def test_a_saved_state_goes_on_to_the_same_bits(kind):
    """Through a file that is read without running code, as the Trainer reads it."""

    def stepped(weight, optimizer, gradients):
        for gradient in gradients:
            weight.grad = torch.tensor(gradient)
            optimizer.step()
        return weight

    whole = nn.Parameter(torch.tensor(START))
    stepped(whole, kind([whole], lr=1e-2, weight_decay=0.1), GRADIENTS)
    half = nn.Parameter(torch.tensor(START))
    optimizer = kind([half], lr=1e-2, weight_decay=0.1)
    stepped(half, optimizer, GRADIENTS[:2])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    rest = nn.Parameter(half.detach().clone())
    optimizer = kind([rest], lr=1.0)
    optimizer.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(stepped(rest, optimizer, GRADIENTS[2:]), whole)


def test_a_closure_is_called_and_its_loss_returned():
    weight = nn.Parameter(torch.ones(2))
    optimizer = BertAdam([weight], lr=1e-2)

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert weight[0] < 1


def test_the_trainer_is_told_numbers_only_of_what_it_does_not_know():
    assert optimizer_of(Training()) is None
    training = Training(
        optimizer="bert_adamax", learning_rate=0.1, adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=0.2
    )
    numbers = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 0.2}
    assert optimizer_of(training) == (BertAdamax, numbers)


def rates(training: Training, total: int) -> list[float]:
    """The learning rate of every step, and what it would be of one more."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=training.learning_rate)
    name, numbers = schedule_of(training)
    warm = round(training.lr_warmup * total)
    schedule = get_scheduler(name, optimizer, warm, total, scheduler_specific_kwargs=numbers)
    found = []
    for _ in range(total + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("options", "quarter", "half", "end"),
    [
        ({}, 0.75, 0.5, 0.0),
        ({"lr_floor": 0.1}, 0.775, 0.55, 0.1),
        ({"lr_schedule": "cosine"}, (1 + math.sqrt(0.5)) / 2, 0.5, 0.0),
        ({"lr_schedule": "cosine", "lr_floor": 0.1}, 0.1 + 0.45 * (1 + math.sqrt(0.5)), 0.55, 0.1),
        ({"lr_schedule": "constant"}, 1.0, 1.0, 1.0),
    ],
    ids=str,
)
def test_curves(options, quarter, half, end):
    """Of 100 steps 20 rise; then a quarter and half of the way down, and what they end at."""
    found = rates(Training(learning_rate=2e-3, lr_warmup=0.2, **options), 100)
    places = {0: 0.0, 5: 0.25, 10: 0.5, 20: 1.0, 40: quarter, 60: half, 100: end}
    for step, fraction in places.items():
        assert found[step] == pytest.approx(2e-3 * fraction, rel=1e-12, abs=1e-18), step


def test_without_warm_up_the_first_step_has_the_peak():
    for curve in ("linear", "cosine", "constant"):
        assert rates(Training(learning_rate=1e-3, lr_warmup=0, lr_schedule=curve), 10)[0] == 1e-3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr_schedule": "constant", "lr_floor": 0.1}, "--lr-floor 0.1: a constant learning rate"),
        ({"clip_each": True, "clip": 0}, "--clip-each: --clip 0 does not clip"),
        ({"lr_floor": 1.0}, "less than 1"),
        ({"adam_beta2": 1.0}, "less than 1"),
        ({"adam_epsilon": 0}, "greater than 0"),
        ({"optimizer": "adamax"}, "'adamw', 'bert_adam' or 'bert_adamax'"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Training(**options)
