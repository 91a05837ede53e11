"""MGPP: its gradient against the prior itself, and runs beside a second implementation of MWA."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

import sentei
from helpers.gated import STEPS, ours
from sentei.methods.mgpp import MixtureGaussian
from sentei.parts.progress import Progress
from sentei.testing import Training

# (lambda, spike, slab) of the authors' scripts, lambda before and after annealing where it is.
PRIORS = [
    (1e-1, 1e-10, 0.05),
    (1e-4, 1e-10, 0.05),
    (1e-1, 1e-9, 0.05),
    (1e-4, 1e-9, 0.05),
    (1e-1, 1e-9, 0.1),
    (1e-4, 1e-9, 0.1),
    (1e-1, 1e-10, 0.01),
    (1e-4, 1e-10, 0.01),
    (1e-3, 1e-10, 0.05),
]


def moment(ramp: float) -> Progress:
    return Progress(step=1, total=100, sparsity=0.0, final=0.8, reached=0.0, ramp=ramp)


def pull(prior: MixtureGaussian, weights: list[float], ramp=0.0, dtype=torch.float64):
    """What is added to a gradient of 0."""
    weight = torch.tensor(weights, dtype=dtype)
    gradient = torch.zeros_like(weight)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    prior.add_(gradient, weight, moment(ramp), torch.empty(len(weights), dtype=wide))
    return gradient


def log_prior(theta, slab_probability, spike, slab):
    def normal(variance):
        return mpmath.exp(-(theta**2) / (2 * variance)) / mpmath.sqrt(2 * mpmath.pi * variance)

    slab_probability, spike, slab = (mpmath.mpf(x) for x in (slab_probability, spike, slab))
    return mpmath.log(slab_probability * normal(slab) + (1 - slab_probability) * normal(spike))


@pytest.mark.parametrize(("slab_probability", "spike", "slab"), PRIORS)
def test_the_gradient_is_that_of_the_log_prior(slab_probability, spike, slab):
    prior = MixtureGaussian(
        slab_probability=slab_probability, spike=spike, slab=slab, examples=1000
    )
    with mpmath.workdps(60):
        thetas = [factor * prior.boundary() for factor in (0.2, 0.7, 1.0, 1.3, 5.0)]
        expected = []
        for theta in thetas:
            h = mpmath.mpf(theta) * mpmath.mpf("1e-20")
            ends = [
                log_prior(mpmath.mpf(theta) + sign * h, slab_probability, spike, slab)
                for sign in (1, -1)
            ]
            expected.append(float(-(ends[0] - ends[1]) / (2 * h) / 1000))
    assert pull(prior, thetas).tolist() == pytest.approx(expected, rel=1e-11)
    in_single = pull(prior, thetas, dtype=torch.float32)
    assert in_single.tolist() == pytest.approx(expected, rel=2e-5)
    assert pull(prior, [-theta for theta in thetas]).tolist() == (-pull(prior, thetas)).tolist()


@pytest.mark.parametrize(
    ("prior", "boundary"),
    [
        ((1e-1, 1e-10, 0.05), 4.94e-5),
        ((1e-4, 1e-10, 0.05), 6.20e-5),
        ((1e-1, 1e-9, 0.05), 1.49e-4),
        ((1e-4, 1e-9, 0.05), 1.90e-4),
        ((1e-1, 1e-9, 0.1), 1.51e-4),
        ((1e-4, 1e-9, 0.1), 1.92e-4),
        ((1e-1, 1e-10, 0.01), 4.78e-5),
        ((1e-4, 1e-10, 0.01), 6.07e-5),
    ],
)
def test_where_spike_and_slab_are_equally_probable(prior, boundary):
    slab_probability, spike, slab = prior
    part = MixtureGaussian(slab_probability=slab_probability, spike=spike, slab=slab)
    assert part.boundary() == pytest.approx(boundary, rel=2e-3)
    theta = part.boundary()
    densities = [
        share / math.sqrt(variance) * math.exp(-(theta**2) / (2 * variance))
        for share, variance in ((slab_probability, slab), (1 - slab_probability, spike))
    ]
    assert densities[0] == pytest.approx(densities[1], rel=1e-9)


def test_the_boundary_moves_as_the_prior_anneals():
    prior = MixtureGaussian(anneal=0.001)
    annealed = MixtureGaussian(slab_probability=1e-4).boundary()
    halfway = MixtureGaussian(slab_probability=0.1 * 0.5005).boundary()
    found = [prior.boundary(moment(ramp)) for ramp in (-3.0, 0.0, 0.5, 1.0, 7.0)]
    assert found == pytest.approx(
        [prior.boundary(), prior.boundary(), halfway, annealed, annealed], rel=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_weights_do_not_overflow(dtype):
    """exp(c2 w^2) does, from 1.3e-4 on."""
    prior = MixtureGaussian(examples=10)
    weights = [1e-3, -0.1, 5.0, -300.0, 0.0]
    found = pull(prior, weights, dtype=dtype)
    exact = torch.tensor(weights).to(dtype).float() / 0.05 / 10
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.float(), exact, rtol=1e-2, atol=0)


def test_zero_feels_no_prior():
    assert pull(MixtureGaussian(examples=1), [0.0, -0.0]).tolist() == [0.0, 0.0]


class Mwa:
    """The authors' algorithm with an exact count; steps count from 0."""

    def __init__(self, weights, *, steps, examples, start, finetune, interval, initial, final,
                 slab_probability, spike, slab, anneal, always):  # fmt: skip
        self.weights, self.examples = weights, examples
        self.p0, self.p1, self.interval = start, steps - finetune - 1, interval
        self.initial, self.final = initial, final
        self.slab_probability, self.spike, self.slab = slab_probability, spike, slab
        self.anneal, self.always = anneal, always
        self.masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
        self.revived = 0

    def slab_probability_at(self, t):
        if t < self.p0:
            return self.slab_probability
        left = max(1 - (t - self.p0) / (self.p1 - self.p0), 0.0)
        return self.slab_probability * (self.anneal + (1 - self.anneal) * left)

    def prior_(self, t):
        if t > self.p1 and not self.always:
            return
        share = self.slab_probability_at(t)
        c1 = math.log(share) - math.log(1 - share)
        c1 += 0.5 * math.log(self.spike) - 0.5 * math.log(self.slab)
        c2 = 0.5 / self.spike - 0.5 / self.slab
        for w in self.weights:
            in_spike = 1 / (1 + torch.exp(c1 + c2 * w**2))
            slope = 1 / self.slab + in_spike * (1 / self.spike - 1 / self.slab)
            w.grad += w * slope / self.examples

    def prune_(self, t):
        if t > self.p1:
            for w, mask in zip(self.weights, self.masks, strict=True):
                w.masked_fill_(~mask, 0.0)
            return
        left = max(1 - (t - self.p0) / (self.p1 - self.p0), 0.0)
        sparsity = self.final + (self.initial - self.final) * left**3
        if t in (self.p0, self.p1) or (t > self.p0 and t % self.interval == 0):
            sizes = torch.cat([w.abs().flatten() for w in self.weights])
            keep = torch.ones_like(sizes, dtype=torch.bool)
            count = round(sizes.numel() * sparsity)
            keep[torch.sort(sizes, stable=True).indices[:count]] = False
            for i, piece in enumerate(keep.split([w.numel() for w in self.weights])):
                piece = piece.view_as(self.weights[i])
                self.revived += int((piece & ~self.masks[i]).sum())
                self.masks[i] = piece
                self.weights[i].masked_fill_(~piece, 0.0)


CODINGS = {
    "PTMGP": {
        "slab_probability": 0.1,
        "spike": 1e-4,
        "slab": 0.05,
        "anneal": 0.001,
        "initial": 0.3,
    },
    "PTMGP, published variances": {
        "slab_probability": 0.1,
        "spike": 1e-10,
        "slab": 0.05,
        "anneal": 0.001,
        "initial": 0.3,
    },
    "BayesianPruner": {
        "slab_probability": 1e-3,
        "spike": 1e-4,
        "slab": 0.05,
        "anneal": 1.0,
        "initial": 0.1,
    },
}


@pytest.mark.parametrize("coding", CODINGS)
def test_two_implementations_agree_at_every_step(coding):
    numbers, constant = CODINGS[coding], coding == "BayesianPruner"
    run = ours(
        sentei.mgpp(
            0.4,
            until="end" if constant else "ramp",
            warmup=0.1,
            cooldown=0.2,
            every=5,
            reconstruction=None,
            **numbers,
        )
    )
    plain = Training(None, dtype=torch.float64, micro_batches=2, steps=STEPS)
    weights = [block.weight for block in plain.model.blocks]
    mwa = Mwa(
        [w.data for w in weights],
        steps=STEPS,
        examples=8 * STEPS,
        start=5,
        finetune=12,
        interval=5,
        final=0.4,
        always=constant,
        **numbers,
    )
    for training in (run, plain):
        # High, so that pruned weights come back; a narrow spike would amplify rounding then.
        training.optimizer.param_groups[0]["lr"] = 0.01 if numbers["spike"] < 1e-9 else 0.02
    asked = []
    for t in range(STEPS):
        run.step()
        plain.gradients()
        for data, w in zip(mwa.weights, weights, strict=True):
            data.grad = w.grad  # the same tensor: added to once, after the last micro-batch
        mwa.prior_(t)
        plain.optimizer.step()
        plain.optimizer.zero_grad()
        plain.count += 1
        mwa.prune_(t)
        for mask, keep in zip(run.pruner.masks.values(), mwa.masks, strict=True):
            assert torch.equal(mask, keep), t
        for a, b in zip(run.model.parameters(), plain.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
        asked.append(run.pruner.pruned)
    assert asked[4] == 0 and asked[5] == round(1024 * numbers["initial"]), "the first jump"
    assert asked[47] == round(1024 * 0.4) and (mwa.revived > 20 or numbers["spike"] < 1e-9)
    assert run.finish().pruned == round(1024 * 0.4)


@pytest.mark.parametrize("until", ["ramp", "end"])
def test_the_prior_ends_with_the_ramp_or_never(until):
    recipe = sentei.mgpp(0.5, spike=1e-4, until=until, warmup=0.1, cooldown=0.2, every=5)
    pulled = []
    for examples in (480, 10**15):
        torch.manual_seed(0)
        run = Training(None, dtype=torch.float64, steps=STEPS)
        run.pruner = sentei.Pruner(run.model, recipe, total_steps=STEPS, examples=examples)
        run.optimizer = torch.optim.SGD(run.model.parameters(), lr=1e-12)
        run.pruner.attach(run.optimizer)
        steps = []
        for _ in range(STEPS):
            run.gradients()
            run.optimizer.step()
            steps.append(run.model.blocks[1].weight.grad.clone())
            run.optimizer.zero_grad()
            run.count += 1
        pulled.append(steps)
    felt = [not torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(*pulled, strict=True)]
    assert felt == [True] * 48 + [until == "end"] * 12
