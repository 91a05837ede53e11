"""Hooks stay with the module that they were made for."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from helpers.pruning import LATENT
from sentei.pruning.hooks import Hook
from sentei.testing import Training


def test_a_hook_acts_and_its_copies_do_not():
    calls = []
    hook = Hook(lambda *args: calls.append(args))
    hook("module", 1)
    for copied in (copy.deepcopy(hook), pickle.loads(pickle.dumps(hook))):
        copied("module", 2)
        assert copied.act is None
    assert calls == [("module", 1)]


@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_a_deep_copy_of_the_model_is_a_plain_one():
    """Averages of weights and teachers are made so."""
    training = Training(LATENT["l0"]).run(10)
    copied = copy.deepcopy(training.model).train()
    saved, x = copied.state_dict(), training.inputs[0]
    expected = training.model.eval()(x)
    assert torch.equal(copied(x), expected)
    copied.load_state_dict({name: tensor * 0 for name, tensor in saved.items()})
    assert not copied(x).any()
    training.model.train()
    training.step()
