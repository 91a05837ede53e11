"""Decisions: their counts, their warnings, and scores that rank nothing."""

from __future__ import annotations

import pytest
import torch

import sentei
from helpers.pruning import MAGNITUDE, PLATON, latent, projected
from sentei.testing import STEPS, Training


def test_every_weight_may_go():
    """round(n s) reaches n in a small scope."""
    training = Training(sentei.magnitude(0.999, every=2, scope={"include": ["output.weight"]}))
    assert training.run().finish().pruned == 16


@projected
def test_flips_and_overlap_are_between_the_masks_of_two_decisions(recipe):
    training = Training(recipe)
    before = torch.ones(1024, dtype=torch.bool)
    decisions = 0
    while training.count < STEPS:
        training.step()
        if len(training.pruner.updates) > decisions:
            decisions += 1
            update = training.pruner.updates[-1]
            after = torch.cat([mask.view(-1) for mask in training.pruner.masks.values()])
            assert update.flips == int((before != after).sum())
            both, either = int((before & after).sum()), int((before | after).sum())
            assert update.overlap == pytest.approx(both / either)
            assert update.pruned == training.pruner.pruned == int((~after).sum())
            before = after.clone()
    assert decisions > 3


def test_the_last_step_decides_and_finishing_does_not_again():
    training = Training(PLATON).run()
    assert training.pruner.updates[-1].step == STEPS
    assert training.finish().updates == tuple(training.pruner.updates)
    short = Training(PLATON).run(STEPS // 2)
    with pytest.warns(sentei.SenteiWarning, match="straight to the final sparsity"):
        report = short.finish()
    last = report.updates[-1]
    assert (last.step, last.target, last.pruned) == (STEPS // 2, 0.7, round(0.7 * 1024))


def test_finish_before_there_are_scores():
    training = Training(sentei.platon(0.7, window=5, every=2, warmup=0.2)).run(4)
    with pytest.warns(sentei.SenteiWarning), pytest.raises(ValueError, match=r"score\.window=5"):
        training.finish()


@pytest.mark.parametrize(("away", "warns"), [(0.004, False), (0.02, True)])
def test_the_count_is_fixed_with_a_warning_where_it_was_far(away, warns, recwarn):
    """The last step before: a threshold in the middle of scores that stand still."""
    recipe = sentei.soft_movement(0.5, settle=0.1, coefficient=0.0, score_lr=1e-12)
    training = Training(recipe).run(30)
    memories = training.pruner.state_dict()["memory"].values()
    for memory in memories:
        memory["score"].copy_(torch.linspace(-1, 1, 256).view(16, 16))
        memory["exp_avg"].zero_()
    # sigmoid(score) <= 0.1 prunes nothing; shift the scores so that 0.5 + away fall under it.
    shift = torch.logit(torch.tensor(0.1)) + 1 - 2 * (0.5 + away)
    for memory in memories:
        memory["score"].add_(shift)
    recwarn.clear()
    for _ in range(10):
        training.gradients()
        training.optimizer.step()
        training.optimizer.zero_grad()
        training.count += 1
    warned = [w for w in recwarn if issubclass(w.category, sentei.SenteiWarning)]
    assert len(warned) == warns
    assert training.pruner.updates[-1].pruned == 512


def test_a_sparsity_left_as_it_comes_is_told_at_the_end():
    training = Training(sentei.soft_movement(0.7, settle=None)).run()
    with pytest.warns(sentei.SenteiWarning, match=r"ended at sparsity .*, not 0\.7: .*settle"):
        report = training.finish()
    assert report.pruned == training.pruner.pruned != round(0.7 * 1024)


def test_nan_gradient_names_its_weight():
    training = Training(MAGNITUDE).run(21)
    training.gradients()
    weight = training.model.blocks[2].weight
    weight.grad[weight != 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"at step 22: .*blocks\.2\.weight is not finite"):
        training.optimizer.step()


@projected
def test_nan_weight_ends_the_run_at_the_next_decision(recipe):
    training = Training(recipe).run(20)
    training.model.blocks[2].weight.data[3, 4] = float("nan")
    with pytest.raises(FloatingPointError, match=r"at step 22: .*blocks\.\d\.weight is not finite"):
        training.run(2)


def test_scores_may_overflow_where_weights_do_not():
    """Adam divides by the square of such a gradient, which is infinite: the weight stands still."""
    training = Training(PLATON).run(20)
    with pytest.raises(FloatingPointError, match=r"at step 22: .*the weights are finite"):
        for _ in range(2):
            training.gradients()
            training.model.blocks[1].weight.data[0, 0] = 100.0
            training.model.blocks[1].weight.grad[0, 0] = 1e38
            training.optimizer.step()


def test_a_score_that_is_nan_does_not_pass_for_one_that_is_kept():
    """N:M compares scores among each other, and of a NaN no comparison holds."""
    training = Training(sentei.platon(0.5, window=2, every=2, pattern="2:4")).run(20)
    for memory in training.pruner.state_dict()["memory"].values():
        memory["importance"].view(-1)[1] = float("nan")
    with pytest.raises(FloatingPointError, match=r"a score is NaN|are finite"):
        training.run(2)


@latent
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_nan_under_a_latent_mask_ends_the_run(recipe):
    training = Training(recipe).run(20)
    weight = training.model.blocks[2].weight
    with pytest.raises(FloatingPointError, match=r"cannot rank the weights at step 2\d: "):
        for _ in range(2):
            training.gradients()
            weight.grad.fill_(float("nan"))
            training.optimizer.step()


@pytest.mark.parametrize("steps", [1, 7])
def test_too_few_steps_for_a_score_are_said_to_be(steps):
    """A loss scaler may skip all the others."""
    training = Training(sentei.platon(0.7, window=8, every=2, warmup=0.3)).run(steps)
    with (
        pytest.warns(sentei.SenteiWarning, match="training stopped"),
        pytest.raises(ValueError, match=rf"only {steps} optimizer steps? of 40 counted, too few"),
    ):
        training.finish()
