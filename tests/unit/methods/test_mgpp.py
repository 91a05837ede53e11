"""The mixture-Gaussian prior: when it acts, what it refuses. Its gradient: see tests/faithful."""

from __future__ import annotations

import pytest
import torch

from helpers.progress import progress
from sentei.methods.mgpp import MixtureGaussian
from sentei.parts.penalties import Penalty


@pytest.mark.parametrize("until", ["ramp", "end"])
def test_the_prior_acts_up_to_the_last_step_of_the_ramp(until):
    prior = MixtureGaussian(until=until, examples=10)

    def acts(ramp):
        gradient, weight = torch.zeros(2), torch.tensor([0.1, -1e-5])
        prior.add_(gradient, weight, progress(ramp=ramp), torch.empty(2))
        return bool(gradient.all())

    assert [acts(ramp) for ramp in (-2.0, 0.0, 1.0)] == [True] * 3
    assert [acts(ramp) for ramp in (1.01, 4.0)] == [until == "end"] * 2


def test_the_prior_adds_to_what_is_there():
    prior, weight = MixtureGaussian(examples=10), torch.tensor([0.5, -0.25])
    gradient = torch.tensor([1.0, 2.0])
    prior.add_(gradient, weight, progress(), torch.empty(2))
    assert gradient.tolist() == pytest.approx([1 + 0.5 / 0.5, 2 - 0.25 / 0.5])
    assert weight.tolist() == [0.5, -0.25]


def test_the_number_of_examples_comes_from_the_data_unless_it_is_set():
    assert MixtureGaussian().with_examples(7).examples == 7
    assert MixtureGaussian(examples=3).with_examples(7).examples == 3


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (MixtureGaussian(), r"mixture_gaussian needs the number of training examples: pass.*exam"),
        (MixtureGaussian(spike=0.1, slab=0.05, examples=1), r"spike=0\.1 must be below slab=0\.05"),
        (MixtureGaussian(spike=0.05, slab=0.05, examples=1), "must be below"),
    ],
)
def test_a_prior_that_cannot_be(prior, message):
    with pytest.raises(ValueError, match=message):
        prior.check()


def test_kinds():
    assert Penalty.model_validate("mixture_gaussian") == MixtureGaussian()
