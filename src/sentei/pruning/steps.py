"""Steps: what happens at the optimizer's hooks, and what is refused there."""

from __future__ import annotations

import sys
import warnings
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from sentei.messages import SenteiWarning
from sentei.modules import taught
from sentei.parts.progress import Progress
from sentei.pruning import decide, observe, optimizers, reconstruct, weigh
from sentei.pruning.agreement import Agreement
from sentei.pruning.apply import Weights
from sentei.pruning.inputs import LayerInputs
from sentei.pruning.ownership import Places
from sentei.pruning.state import PruningState


class Steps:
    """The steps of an optimizer.

    Args:
        model: The model being trained.
        state: Of its pruning.
        weights: In its modules.
        places: Where it holds them.
        inputs: Of its layers, where the recipe observes them.
    """

    def __init__(
        self,
        model: nn.Module,
        state: PruningState,
        weights: Weights,
        places: Places,
        inputs: LayerInputs | None,
    ) -> None:
        self._model = model
        self._state = state
        self._weights = weights
        self._places = places
        self._inputs = inputs
        self.agreement = Agreement(model, [site.parameter for site in state.selected])
        self._skipping = False
        self._lr: dict[int, float] = {}
        self._begun: FrameType | None = None
        self._nested = 0
        self.seen = False
        """Whether the optimizer has stepped, or tried to, since the pruner was attached."""
        self.owner: object = None
        """The pruner while it is attached: it must live as long as the optimizer's hooks."""
        self.expected_weights: int | None = None
        """The checksum that the weights must have at the next step, after loading."""

    @property
    def idle(self) -> bool:
        """At sparsity 0 training is left alone: no score, no penalty, no mask."""
        return self._state.recipe.schedule.sparsity == 0

    @property
    def done(self) -> float:
        """The fraction of training that is done, in [0, 1]."""
        return min(self._state.step / self._state.total_steps, 1.0)

    def before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """The optimizer is about to step."""
        self.seen = True
        if optimizers.nests_steps(optimizer):
            caller = sys._getframe(1)
            if self._begun is not None and _runs_in(caller, self._begun):
                self._nested += 1
                return
            self._begun, self._nested = caller, 0
        with torch.no_grad():
            self._before(optimizer, args, kwargs)

    def after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """The optimizer has stepped."""
        if self._nested:
            self._nested -= 1
            return
        self._begun = None
        with torch.no_grad():
            self._after()

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        state = self._state
        self._skipping = optimizers.overflowed(optimizer)
        if self._skipping:
            self._weights.rest()
            self._weights.sampled_forward = False
        else:
            self._weights.restore()
        if self._skipping:
            return
        self._check_form()
        if self.idle:
            return
        if state.step == 0:
            self._check_teacher()
        self.check_weights()
        optimizers.unscale_(optimizer)
        if observe.reads_gradient(state.recipe):
            if next(iter(args[1:]), kwargs.get("closure")) is not None:
                raise ValueError(
                    "this recipe reads or changes gradients before the optimizer's step, but a "
                    "closure computes them inside: step without a closure, or (where the score is "
                    "why) use score.iterate='new'"
                )
            if state.pending and state.pending.awaited:
                decide.conclude(state)
            progress = state.progress(state.step + 1, decision=state.step)
            observe.before_step(state, progress, sampled=self._weights.sampled_forward)
        if observe.shrinks(state.recipe):
            self._lr = optimizers.learning_rates(optimizer)
        self._weights.swap()

    def _after(self) -> None:
        if self._skipping:
            return
        state, weights = self._state, self._weights
        state.step += 1
        if state.step == state.total_steps + 1:
            warnings.warn(
                f"training goes on past total_steps={state.total_steps}: the sparsity stays at "
                f"{state.recipe.schedule.sparsity:g}",
                SenteiWarning,
                stacklevel=3,
            )
        if self.idle:
            return
        weights.swap()
        observe.learn(state)
        decide.conclude(state)
        progress = state.progress(state.step)
        if observe.shrinks(state.recipe):
            observe.shrink(state, self._lr, progress)
        if state.recipe.score.observes_new:
            observe.after_step(state, state.step)
        state.scores_changed |= state.recipe.score.changes_at(state.step)
        updated = state.recipe.schedule.is_update(state.step, state.total_steps)
        if updated:
            if not state.recipe.mask.latent:
                weights.write(progress, updated=False)  # a held weight is zero when it is ranked
            decide_and_reconstruct(state, progress)
            self.agreement.compare((one.keep for one in state.sites.values()), state.step)
        weights.write(progress, updated=updated)
        weights.step_done()
        self.look_ahead()

    def look_ahead(self) -> None:
        """Observe the inputs of layers in the next step, if a decision will want them."""
        state, step, part = self._state, self._state.step + 1, self._state.recipe.inputs
        if self._inputs is None or part is None or self.idle:
            return
        if any(wants_inputs(state, ahead) for ahead in range(step, step + part.steps)):
            self._inputs.watch(state.inputs, step)
        else:
            self._inputs.rest()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def before_forward(self, module: nn.Module, args: Any) -> None:
        """Write the weights that training's forward passes see, those that are saved otherwise."""
        if getattr(module, "_is_replica", False):
            raise ValueError(
                "stochastic gates, and heads or neurons with dense weights aside, need other "
                "weights in training's forward passes, and DataParallel has copied the weights by "
                "then: use one process a GPU (torchrun), or one GPU (CUDA_VISIBLE_DEVICES=0)"
            )
        if module.training and not self.idle:
            self._check_form()
            self.check_weights()
            self._weights.train()
        else:
            self._weights.rest()

    def _check_form(self) -> None:
        """Refuse weights that are no longer the model's, or of another form."""
        self._places.check()
        self._weights.check_form()

    def check_weights(self) -> None:
        """Refuse weights that somebody else has exchanged since the last step.

        Raises:
            ValueError: They are not those of the state that was loaded, or not as this pruner left
                them and has to find them.
        """
        expected = self.expected_weights
        if expected is not None and expected != self._state.checksum():
            raise ValueError(
                f"cannot resume at step {self._state.step}: the prunable weights are not what they "
                "were when the pruner's state was saved; load the model's weights of the same "
                "checkpoint"
            )
        self.expected_weights = None
        self._weights.check_untouched()

    def _check_teacher(self) -> None:
        """The pruner prunes; somebody else must bring the teacher that a recipe asks for."""
        distill = self._state.recipe.distill
        if distill and distill.required and not taught(self._model):
            warnings.warn(
                f"the recipe {self._state.recipe.method} learns from a teacher, and none is "
                "attached: use sentei.Distiller(model, teacher, recipe.distill).attach(), or say "
                "that there is none with the recipe's distill=None",
                SenteiWarning,
                stacklevel=4,
            )


def wants_inputs(state: PruningState, step: int) -> bool:
    """Whether the next decision is made at ``step``, and wants the inputs of layers up to it."""
    return weigh.is_due(state, step) or reconstruct.is_due(state, step)


def decide_and_reconstruct(state: PruningState, progress: Progress) -> None:
    """A decision, with what comes of inputs before and after it.

    Raises:
        ValueError: Inputs were not seen, and the score needs them.
        FloatingPointError: A score is NaN.
    """
    rebuilt = reconstruct.is_due(state, progress.step)
    seen = list(state.inputs.values()) if wants_inputs(state, progress.step) else []
    for observed in seen:
        observed.share()
    if seen:
        weigh.weigh_(state)
    wanted = reconstruct.wanted(state) if rebuilt else {}
    decide.decide(state, progress, progress.step)
    if rebuilt:
        reconstruct.reconstruct_(state, wanted)
    for observed in seen:
        assert state.recipe.inputs is not None
        observed.fade(state.recipe.inputs.beta)


def _runs_in(frame: FrameType | None, outer: FrameType) -> bool:
    """Whether a call is inside another one."""
    while frame is not None and frame is not outer:
        frame = frame.f_back
    return frame is outer
