"""The engine's edges: attaching, ending, resuming, and everything that must be refused."""

from __future__ import annotations

import contextlib
import copy
import signal
import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import BertConfig, BertModel

import sentei
from sentei.methods import known
from sentei.parts.masks import StraightThrough
from sentei.testing import STEPS, Training

PLATON = sentei.platon(0.7, window=2, every=2)
MAGNITUDE = sentei.magnitude(0.7, every=2)
MOVEMENT = sentei.movement(0.7)
LATENT = {
    "movement": MOVEMENT,
    "soft_movement": sentei.soft_movement(0.7),
    "l0": sentei.l0(0.7),
    "leap": sentei.leap(0.7),
    "leap of magnitudes": sentei.leap(0.7, score="magnitude"),
    "platon": sentei.platon(0.7, window=2, every=2, iterate="old").model_copy(
        update={"mask": StraightThrough()}
    ),
}
latent = pytest.mark.parametrize("recipe", LATENT.values(), ids=LATENT.keys())


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def snapshot(pruner):
    return copy.deepcopy(pruner.state_dict())


def unchanged(pruner, state):
    now = pruner.state_dict()
    tensors = same(now["masks"], state["masks"]) and same(now["budget"], state["budget"])
    tensors &= all(same(now["memory"][site], state["memory"][site]) for site in state["memory"])
    plain = [name for name in state if name not in ("masks", "memory", "budget")]
    return tensors and all(now[name] == state[name] for name in plain)


def step(training, loss=None):
    """One step of a training whose loss is not the usual one."""
    loss = training.model(training.inputs[0]).square().mean() if loss is None else loss
    loss.backward()
    training.optimizer.step()
    training.optimizer.zero_grad()


# Attaching.


@pytest.mark.parametrize(
    "thing",
    [None, 3, nn.Linear(2, 2), object()],
    ids=["none", "number", "module", "object"],
)
def test_attach_wants_an_optimizer(thing):
    pruner = Training(None)
    pruner = sentei.Pruner(pruner.model, PLATON, total_steps=STEPS)
    with pytest.raises(ValueError, match=f"torch optimizer, got {type(thing).__name__}"):
        pruner.attach(thing)


@pytest.mark.parametrize(("left_out", "told"), [(1, "is not in the"), (3, "and 2 more prunable")])
def test_attach_wants_every_prunable_weight(left_out, told):
    model = Training(None).model
    pruner = sentei.Pruner(model, PLATON, total_steps=STEPS)
    missing = [f"blocks.{i}.weight" for i in range(left_out)]
    parameters = [p for name, p in model.named_parameters() if name not in missing]
    with pytest.raises(ValueError, match=rf"^blocks\.0\.weight {told}"):
        pruner.attach(torch.optim.SGD(parameters))


def test_attach_twice():
    training = Training(PLATON)
    for optimizer in (training.optimizer, torch.optim.SGD(training.model.parameters())):
        with pytest.raises(ValueError, match="attached to an optimizer already"):
            training.pruner.attach(optimizer)


class DeepSpeedZeroOptimizer(torch.optim.SGD):
    pass


def test_deepspeed_is_refused():
    model = Training(None).model
    pruner = sentei.Pruner(model, PLATON, total_steps=STEPS)
    with pytest.raises(ValueError, match="DeepSpeed engines"):
        pruner.attach(DeepSpeedZeroOptimizer(model.parameters()))


def test_detach_stops_pruning():
    training = Training(MAGNITUDE).run(STEPS // 2)
    training.pruner.detach()
    before = snapshot(training.pruner)
    training.step()
    assert unchanged(training.pruner, before | {"weights": training.pruner.state_dict()["weights"]})


@pytest.mark.parametrize("iterate", ["new", "old"])
def test_accelerate_wraps_the_optimizer(iterate):
    recipe = sentei.platon(0.7, window=2, every=2, iterate=iterate)
    plain, wrapped = Training(recipe), Training(None)
    accelerator = Accelerator(cpu=True)
    wrapped.model, wrapped.optimizer = accelerator.prepare(wrapped.model, wrapped.optimizer)
    wrapped.pruner = sentei.Pruner(wrapped.model, recipe, total_steps=STEPS)
    wrapped.pruner.attach(wrapped.optimizer)
    assert same(plain.run().weights(), wrapped.run().weights())
    assert wrapped.finish().sparsity == pytest.approx(0.7, abs=1e-3)


# What does not fit.


@pytest.mark.parametrize("steps", [0, 3, 11])
def test_schedule_that_does_not_fit(steps):
    model = Training(None).model
    with pytest.raises(ValueError, match=r"total_steps=0|schedule|score"):
        sentei.Pruner(model, sentei.platon(0.7), total_steps=steps)


def test_scope_that_matches_nothing():
    recipe = sentei.platon(0.7, scope={"include": ["*.attn.*"]})
    with pytest.raises(ValueError, match="matched no weight"):
        sentei.Pruner(Training(None).model, recipe, total_steps=STEPS)


# The end.


def test_finish_without_a_step():
    with pytest.raises(ValueError, match="pruning never ran"):
        Training(PLATON).finish()


def test_finish_twice():
    training = Training(PLATON).run()
    training.finish()
    with pytest.raises(ValueError, match="finished already"):
        training.finish()


def test_finished_stays_finished():
    """Asking for the state afterwards must not bring an empty one to life."""
    training = Training(PLATON).run()
    training.finish()
    with contextlib.suppress(ValueError):
        training.pruner.state_dict()
    with pytest.raises(ValueError, match="finished already"):
        training.finish()
    with pytest.raises(ValueError, match="has finished"):
        training.pruner.attach(training.optimizer)


def test_finish_before_there_are_scores():
    training = Training(sentei.platon(0.7, window=5, every=2, warmup=0.2)).run(4)
    with pytest.warns(sentei.SenteiWarning), pytest.raises(ValueError, match=r"score\.window=5"):
        training.finish()


def test_training_past_the_end_warns_once_and_stays_at_the_target():
    training = Training(PLATON).run()
    with pytest.warns(sentei.SenteiWarning, match="past total_steps=40") as told:
        for _ in range(3):
            step(training)
    assert len(told) == 1
    assert training.pruner.target == 0.7
    assert training.finish().pruned == round(0.7 * training.pruner.prunable)


def test_every_weight_may_go():
    """round(n s) reaches n in a small scope."""
    training = Training(sentei.magnitude(0.999, every=2, scope={"include": ["output.weight"]}))
    assert training.run().finish().pruned == 16


def test_report_is_measured():
    training = Training(MAGNITUDE).run()
    report = training.finish()
    model = training.model
    assert report.zeros == sum(int((p == 0).sum()) for p in model.parameters())
    assert report.parameters == sum(p.numel() for p in model.parameters())
    for site in report.sites:
        weight = model.get_parameter(site.name)
        assert (site.pruned, site.weights) == (int((weight == 0).sum()), weight.numel())
    assert [u.step for u in report.updates] == sorted({u.step for u in report.updates})
    assert sum(report.weight_histogram.kept) == report.prunable - report.pruned


# Resuming.


def stopped(recipe=PLATON, steps=STEPS // 2):
    training = Training(recipe).run(steps)
    return training, snapshot(training.pruner)


@pytest.mark.parametrize(
    ("recipe", "steps", "difference"),
    [
        (sentei.platon(0.6, window=2, every=2), STEPS, "recipe.schedule.sparsity was 0.7, is 0.6"),
        (sentei.platon(0.7, window=3, every=2), STEPS, "recipe.score.window was 2, is 3"),
        (MAGNITUDE, STEPS, "recipe.method was 'platon', is 'magnitude'"),
        (PLATON, STEPS + 2, "total_steps was 40, is 42"),
    ],
)
def test_state_of_another_run(recipe, steps, difference):
    _, state = stopped()
    other = Training(recipe, steps=steps).run(6)
    before = snapshot(other.pruner)
    with pytest.raises(ValueError) as caught:
        other.pruner.load_state_dict(state)
    assert str(caught.value) == f"cannot resume: {difference}"
    assert unchanged(other.pruner, before)
    other.step()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: masks.pop("blocks.2.weight"), "blocks.2.weight is in the scope now"),
        (
            lambda masks: masks.update(extra=torch.ones(2) > 0),
            "extra was pruned and is not in the scope now",
        ),
        (
            lambda masks: masks.update({"blocks.1.weight": torch.ones(3, 16) > 0}),
            r"blocks.1.weight was \(3, 16\) and is \(16, 16\) now",
        ),
    ],
)
def test_state_of_another_scope(change, message):
    training, state = stopped()
    before = snapshot(training.pruner)
    change(state["masks"])
    with pytest.raises(ValueError, match=message):
        training.pruner.load_state_dict(state)
    assert unchanged(training.pruner, before)


def test_state_of_another_format():
    training, state = stopped()
    with pytest.raises(ValueError, match="state of format 99"):
        training.pruner.load_state_dict(state | {"format": 99})


@pytest.mark.parametrize("recipe", [PLATON, MAGNITUDE], ids=["platon", "magnitude"])
def test_file_resumes_bit_for_bit(recipe, tmp_path):
    whole = Training(recipe).run()
    first, _ = stopped(recipe, 17)
    first.pruner.save(tmp_path / "p.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]
    second = Training(recipe)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.pruner.load(tmp_path / "p.safetensors")
    assert unchanged(second.pruner, snapshot(first.pruner))
    second.count = 17
    second.run(STEPS - 17)
    assert same(second.weights(), whole.weights())
    assert second.pruner.updates == whole.pruner.updates
    assert second.finish() == whole.finish()


@pytest.mark.parametrize("recipe", [PLATON, MOVEMENT, LATENT["l0"]], ids=lambda r: r.method)
def test_wrong_weights_are_refused_at_the_next_step(recipe):
    first, state = stopped(recipe)
    second = Training(recipe)
    second.pruner.load_state_dict(state)
    before = second.weights()
    with pytest.raises(
        ValueError, match="cannot resume at step 20: the prunable weights are not what"
    ):
        second.step()
    assert same(before, second.weights())
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.zero_grad()
    second.step()
    assert second.pruner.step == 21


@pytest.fixture
def saved(tmp_path):
    training, _ = stopped()
    path = tmp_path / "pruner.safetensors"
    training.pruner.save(path)
    return path, training.pruner


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def cut_header(path):
    path.write_bytes(path.read_bytes()[:20])


def other_bytes(path):
    path.write_bytes(b"PK\x03\x04 not a safetensors file")


def no_metadata(path):
    save_file({"x": torch.ones(1)}, path)


def rewrite(path, *, metadata=None, drop=""):
    with safe_open(path, "pt") as file:
        metadata = metadata or file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys() if key != drop}
    save_file(tensors, path, metadata=metadata)


def other_metadata(path):
    rewrite(path, metadata={"sentei": "{}"})


def no_json(path):
    rewrite(path, metadata={"sentei": "{"})


def without_a_tensor(path):
    rewrite(path, drop="memory:blocks.3.weight:importance")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        truncate,
        cut_header,
        other_bytes,
        no_metadata,
        other_metadata,
        no_json,
        without_a_tensor,
    ],
)
def test_damaged_files(saved, damage):
    path, pruner = saved
    damage(path)
    before = snapshot(pruner)
    with pytest.raises(ValueError, match="state"):
        pruner.load(path)
    assert unchanged(pruner, before)


SAVE_ON_A_FULL_DISK = """
import resource, sys
from sentei.testing import Training
import sentei
training = Training(sentei.platon(0.7, window=2, every=2)).run(10)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    training.pruner.save(sys.argv[1])
except OSError as error:
    sys.exit(f"refused: {error}")
"""


def test_a_failing_save_leaves_the_old_file(saved):
    path, pruner = saved
    content, before = path.read_bytes(), snapshot(pruner)
    assert len(content) > 4096
    done = subprocess.run(
        [sys.executable, "-c", SAVE_ON_A_FULL_DISK, str(path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    assert done.returncode == 1 and f"refused: {path}: cannot write" in done.stderr
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
    pruner.load(path)
    assert unchanged(pruner, before)


def test_save_where_there_is_no_folder(saved, tmp_path):
    with pytest.raises(OSError, match="missing/p"):
        saved[1].save(tmp_path / "missing" / "p")


# Numbers that are none.


def test_nan_gradient_names_its_weight():
    training = Training(MAGNITUDE).run(21)
    training.gradients()
    weight = training.model.blocks[2].weight
    weight.grad[weight != 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"at step 22: .*blocks\.2\.weight is not finite"):
        training.optimizer.step()


@pytest.mark.parametrize("recipe", [PLATON, MAGNITUDE], ids=["platon", "magnitude"])
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_finish_refuses_weights_that_are_not_finite(value):
    training = Training(sentei.magnitude(0.5, every=2)).run()
    weight = training.model.blocks[3].weight
    weight.data[weight != 0] = value
    with pytest.raises(FloatingPointError, match=r"blocks\.3\.weight holds NaN or infinite"):
        training.finish()


@pytest.mark.parametrize("iterate", ["new", "old"])
def test_missing_gradient(iterate):
    training = Training(sentei.platon(0.7, window=2, every=2, iterate=iterate))
    loss = training.model.output(training.model.input(training.inputs[0])).mean()
    with pytest.raises(ValueError, match=r"blocks\.0\.weight has no gradient at step 1"):
        step(training, loss)


def test_magnitude_needs_no_gradient():
    training = Training(MAGNITUDE)
    for _ in range(STEPS):
        step(training, training.model.input(training.inputs[0]).mean())
    assert training.finish().pruned == round(0.7 * training.pruner.prunable)


# Weights that a latent mask keeps aside.


@latent
@pytest.mark.parametrize("steps", [0, 5])
def test_weights_exchanged_under_a_latent_mask_are_refused(recipe, steps):
    """Between two steps, and between attaching and the first: the dense weights are elsewhere."""
    training = Training(recipe).run(steps)
    weights = {n: 2 * w for n, w in training.model.state_dict().items()}
    training.model.load_state_dict(weights)
    with pytest.raises(ValueError, match=r"blocks\.0\.weight was written to between two steps"):
        training.step()
    assert training.pruner.step == steps


@latent
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
@pytest.mark.parametrize("then", ["save", "step", "finish", "detach"])
def test_a_step_that_was_broken_off_leaves_no_dense_weights(recipe, then):
    """Ctrl-C in the optimizer's step, which runs on the dense weights."""
    training = Training(recipe).run(38)

    def broken(*_):
        raise KeyboardInterrupt

    hook = training.optimizer.register_step_pre_hook(broken)
    training.gradients()
    with pytest.raises(KeyboardInterrupt):
        training.optimizer.step()
    hook.remove()
    if then == "step":
        training.step()
        assert training.pruner.step == 39
    elif then != "save":
        getattr(training.pruner, then)()
    weights = training.model.state_dict()
    zeros = sum(int((block.weight == 0).sum()) for block in training.model.blocks)
    assert 0.69 < zeros / training.pruner.prunable < 0.71
    if then != "finish":  # which drops the masks
        masks = training.pruner.state_dict()["masks"]
        assert all((weights[name][~mask] == 0).all() for name, mask in masks.items())


def test_a_model_that_moved_is_told():
    training = Training(MAGNITUDE).run(5)
    # There is no other device here, so the mask moves.
    state = next(iter(training.pruner._state.sites.values()))
    state.keep = state.keep.to("meta")
    with pytest.raises(ValueError, match=r"is on cpu, and was on meta .* move the model first"):
        training.optimizer.step()


def test_gradients_that_the_optimizer_changes_are_refused():
    training = Training(None)
    parameters = list(training.model.parameters())
    nesterov = {"lr": 1e-2, "momentum": 0.9, "nesterov": True}
    pruner = sentei.Pruner(training.model, PLATON, total_steps=STEPS)
    with pytest.raises(ValueError, match=r"foreach=False, or use score.iterate='old'"):
        pruner.attach(torch.optim.SGD(parameters, foreach=True, **nesterov))
    pruner.attach(torch.optim.SGD(parameters, foreach=False, **nesterov))


@pytest.mark.parametrize("recipe", [PLATON, MAGNITUDE], ids=["platon", "magnitude"])
def test_without_one_they_may_be(recipe):
    training = Training(recipe).run(5)
    training.model.load_state_dict({n: w / 2 for n, w in training.model.state_dict().items()})
    training.step()
    assert training.pruner.step == 6


@latent
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_weights_loaded_before_attaching_are_the_latent_ones(recipe):
    training = Training(None)
    pruner = sentei.Pruner(training.model, recipe, total_steps=STEPS)
    weights = {n: w / 2 for n, w in training.model.state_dict().items()}
    training.model.load_state_dict(weights)
    pruner.attach(training.optimizer)
    memory = pruner.state_dict()["memory"]
    assert all(torch.equal(memory[name]["latent"], weights[name]) for name in memory)


@latent
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_the_module_keeps_its_parameters(recipe):
    """Optimizers, DDP and compiled graphs hold on to the objects and their storage."""
    training = Training(recipe)
    parameters = {n: (id(p), p.data_ptr()) for n, p in training.model.named_parameters()}
    for _ in range(STEPS):
        training.step()
        now = {n: (id(p), p.data_ptr()) for n, p in training.model.named_parameters()}
        assert now == parameters
    training.finish()


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


# Sparsity 0.


@pytest.mark.parametrize("method", known(), ids=lambda method: method.name)
def test_at_sparsity_zero_nothing_happens(method):
    stages = {"stages": 10} if method.name == "knowledge_aware" else {}
    training, dense = Training(method.build(0.0, **stages)), Training(None)
    for number in range(STEPS):
        closure, dense_closure = closure_of(training), closure_of(dense)
        assert torch.equal(training.optimizer.step(closure), dense.optimizer.step(dense_closure))
        if number == 20:
            training.model.load_state_dict(training.model.state_dict())
        assert same(training.weights(), dense.weights())
    assert training.pruner.updates == [] and training.pruner.sparsity == 0
    assert all(mask.all() for mask in training.pruner.masks.values())
    assert training.finish().pruned == 0


# Sparsity that is learned.


def test_ratios():
    training = Training(sentei.leap(0.7, settle=None, initial=3.0)).run(8)
    ratios = training.pruner.ratios
    assert list(ratios) == list(training.pruner.masks)
    kept = [mask.float().mean().item() for mask in training.pruner.masks.values()]
    assert list(ratios.values()) == pytest.approx(kept, abs=1 / 256)
    assert Training(MAGNITUDE).pruner.ratios == {}


def test_ratios_of_neurons_stand_by_their_place():
    config = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertModel(BertConfig(vocab_size=9, num_hidden_layers=1, **config))
    recipe = sentei.leap(0.5, pattern="head+neuron")
    names = list(sentei.Pruner(model, recipe, total_steps=50).ratios)
    layer = "encoder.layer.0"
    assert names == [f"{layer}.attention", layer]


def test_weights_of_two_precisions_are_not_ranked_together():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).double())
    with pytest.raises(ValueError, match=r"1\.weight is float64 and 0\.weight is not"):
        sentei.Pruner(model, sentei.magnitude(0.5, scope={"include": ["*.weight"]}), total_steps=50)


def test_a_name_is_no_recipe():
    for make in (
        lambda: sentei.Pruner(nn.Linear(2, 2), "platon", total_steps=9),
        lambda: sentei.PruningCallback("platon"),
    ):
        with pytest.raises(TypeError, match=r"expected a Recipe, found 'platon'"):
            make()


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
    told = [str(w.message) for w in recwarn if issubclass(w.category, sentei.SenteiWarning)]
    assert len(told) == warns
    assert training.pruner.updates[-1].pruned == 512


def test_a_sparsity_left_as_it_comes_is_told_at_the_end():
    training = Training(sentei.soft_movement(0.7, settle=None)).run()
    with pytest.warns(sentei.SenteiWarning, match=r"ended at sparsity .*, not 0\.7: .*settle"):
        report = training.finish()
    assert report.pruned == training.pruner.pruned != round(0.7 * 1024)


# Optimizers and their steps.


def closure_of(training):
    def closure():
        training.optimizer.zero_grad()
        loss = nn.functional.mse_loss(training.model(training.inputs[0]), training.targets[0])
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("by_name", [True, False])
def test_closures(by_name):
    def run(training, steps):
        for _ in range(steps):
            closure = closure_of(training)
            _ = (
                training.optimizer.step(closure=closure)
                if by_name
                else training.optimizer.step(closure)
            )
        return training

    old = Training(sentei.platon(0.7, window=2, every=2, iterate="old"))
    with pytest.raises(ValueError, match=r"use score\.iterate='new'"):
        run(old, 1)
    report = run(Training(PLATON), STEPS).finish()
    assert report.pruned == round(0.7 * report.prunable)


@pytest.mark.parametrize(
    "recipe", [*LATENT.values(), sentei.mgpp(0.7, every=2)], ids=[*LATENT, "mgpp"]
)
def test_closures_where_gradients_are_changed(recipe):
    training = Training(recipe)
    before = training.weights()
    with pytest.raises(ValueError, match="a closure computes them inside: step without a closure"):
        training.optimizer.step(closure_of(training))
    assert same(before, training.weights()) and training.pruner.step == 0


@pytest.mark.parametrize("recipe", [sentei.proximal(0.7, every=2), sentei.random(0.7, every=2)])
def test_closures_where_they_are_not(recipe):
    training = Training(recipe)
    for _ in range(STEPS):
        training.optimizer.step(closure_of(training))
    assert training.finish().pruned == round(0.7 * 1024)


@pytest.mark.parametrize("spelling", [lambda o: o.step(None), lambda o: o.step(closure=None)])
def test_no_closure_is_no_closure(spelling):
    training = Training(sentei.platon(0.7, window=2, every=2, iterate="old"))
    training.gradients()
    spelling(training.optimizer)
    assert training.pruner.step == 1


OPTIMIZERS = {
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=1e-2, weight_decay=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=True),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=1e-2),
    "groups": lambda p: torch.optim.AdamW(
        [{"params": p[:3], "weight_decay": 0.0}, {"params": p[3:], "lr": 1e-3}], lr=1e-2
    ),
}


@pytest.mark.parametrize("recipe", [PLATON, MAGNITUDE, MOVEMENT], ids=lambda r: r.method)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_optimizers(make, recipe):
    training = Training(None)
    training.optimizer = make(list(training.model.parameters()))
    training.pruner = sentei.Pruner(training.model, recipe, total_steps=STEPS)
    training.pruner.attach(training.optimizer)
    for number in range(1, STEPS + 1):
        training.step()
        assert training.pruner.step == number
        if training.pruner.updates and training.pruner.updates[-1].step == number:
            asked = round(training.pruner.prunable * training.pruner.target)
            assert round(training.pruner.sparsity * training.pruner.prunable) == asked
    assert training.finish().pruned == round(0.7 * training.pruner.prunable)
