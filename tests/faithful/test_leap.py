"""LEAP beside an autograd-gated network whose kept ratios are parameters."""

from __future__ import annotations

import math

import pytest
import torch

import sentei
from helpers.gated import STEPS, Gated, StraightThrough, close, expect_same, ours, top
from sentei.methods.leap import ExcessRatio
from sentei.parts.penalties import ScorePush


class Leap(Gated):
    """Every kept ratio is sigmoid(sigma / T); the regulariser is in the loss, lambda detached."""

    def __init__(self, *, score, form, temperature, initial, maximum, minimum):
        super().__init__(score_lr=0.05, sigma_lr=0.5 * temperature, sigma=initial * temperature)
        self.score, self.form, self.temperature = score, form, temperature
        self.maximum, self.minimum, self.target = maximum, minimum, 0.4

    def ratios(self):
        return [torch.sigmoid(sigma / self.temperature) for sigma in self.sigmas]

    def gates(self):
        gates = []
        for weight, score, sigma, k in zip(
            self.weights, self.scores, self.sigmas, self.ratios(), strict=True
        ):
            ranked = score if self.score == "learned" else weight.abs()
            # The engine decides after a step: the first forward pass is dense.
            pruned = 256 - math.ceil(k.item() * 256) if self.t else 0
            gates.append(StraightThrough.apply(score, sigma, top(ranked, pruned)))
        return gates

    def penalty(self):
        remaining = sum(k * 256 for k in self.ratios()) / (4 * 256)
        if remaining <= self.target:
            return 0.0
        loss = (remaining - self.target) ** 2
        strength = max(self.maximum * loss.item() / (1 - self.target) ** 2, self.minimum)
        if self.form == "code" and loss.item() < 3e-4:
            strength = 10.0
        return strength * loss


@pytest.mark.parametrize("score", ["learned", "magnitude"])
@pytest.mark.parametrize(
    ("form", "temperature", "initial", "maximum", "minimum"),
    [
        ("paper", 1.0, 5.0, 160.0, 10.0),
        ("paper", 4.0, 3.0, 640.0, 10.0),
        ("code", 1.0, 5.0, 20_000.0, 50.0),
        ("code", 0.5, 3.0, 20_000.0, 50.0),
    ],
)
def test_equals_an_autograd_gated_network_at_every_step(
    score, form, temperature, initial, maximum, minimum
):
    recipe = sentei.leap(
        0.6,
        score=score,
        score_lr=0.05,
        push=0.0,
        ratio_lr=0.5 * temperature,
        ratio_beta2=0.999,
        ratio_warmup=0.1,
        temperature=temperature,
        initial=initial,
        form=form,
        lambda_max=maximum,
        lambda_min=minimum,
        settle=None,
    )
    run = ours(recipe)
    reference = Leap(
        score=score,
        form=form,
        temperature=temperature,
        initial=initial,
        maximum=maximum,
        minimum=minimum,
    )
    above = set()
    for _ in range(STEPS):
        run.step()
        reference.step()
        expect_same(run, reference, scores=score == "learned")
        ratios = torch.stack(reference.ratios())
        close(run.pruner.state_dict()["budget"]["sigma"], torch.stack(reference.sigmas))
        assert list(run.pruner.ratios.values()) == pytest.approx(ratios.tolist(), abs=1e-12)
        above.add(bool(ratios.mean() > 0.4))
    assert above == {True, False}, "the target is passed, where the regulariser ends"
    assert len(set(run.pruner.ratios.values())) == 4, "each matrix has its own"


def test_remaining_ratio_and_coefficients_by_hand():
    paper, code = ExcessRatio(), ExcessRatio(form="code", maximum=20_000.0, minimum=50.0)
    assert code.coefficient(0.25, 0.5) == 20_000  # all kept, half asked for
    assert code.coefficient(0.0004, 0.5) == 50  # 20 000 x 0.0004 / 0.25 = 32
    assert code.coefficient(0.0002, 0.5) == 10  # near
    assert paper.coefficient(0.81, 0.1) == pytest.approx(160)
    assert paper.coefficient(0.0002, 0.1) == 10
    assert paper.coefficient(0.2025, 0.1) == pytest.approx(40)


def test_every_matrix_keeps_the_ceiling_of_its_ratio():
    run = ours(sentei.leap(0.6, settle=None))
    for _ in range(STEPS):
        run.step()
        counts = [int(mask.sum()) for mask in run.pruner.masks.values()]
        assert counts == [math.ceil(k * 256) for k in run.pruner.ratios.values()]


def test_a_push_is_for_learned_scores():
    assert sentei.leap(push=2.0).penalties[1:] == (ScorePush(coefficient=2.0),)
    assert not sentei.leap(score="magnitude").penalties[1:] + sentei.leap(push=0.0).penalties[1:]
