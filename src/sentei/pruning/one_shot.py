"""Pruning at once, without training: one decision, by the weights and the inputs of layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sentei.parts.inputs import linear_maps
from sentei.pruning import audit, decide, ownership
from sentei.pruning.apply import Weights
from sentei.pruning.inputs import LayerInputs
from sentei.pruning.state import PruningState
from sentei.pruning.steps import decide_and_reconstruct
from sentei.pruning.summary import summarize
from sentei.recipe import Recipe, check_type
from sentei.records import PruningReport
from sentei.sharded import hold_shards


@torch.no_grad()
def one_shot(model: nn.Module, recipe: Recipe, batches: Iterable[Any] = ()) -> PruningReport:
    """Prune a trained model at once, in place, without training it.

    The model is called with every batch, in evaluation mode and without gradients, where the recipe
    looks at the inputs of layers; then one decision is made, at the recipe's final sparsity.

    Args:
        model: A trained model; it stays where it is, on a GPU or not.
        recipe: What to do, with parts that need no training: ``magnitude``, ``wanda``, ``obs`` or
            ``random``, with ``reconstruction`` or without. Its schedule's ramp is not used.
        batches: Examples like those that the model is for: mappings of its arguments by name,
            sequences of them by place, or single tensors. They are read once, and not at all where
            the recipe has no use for inputs. Many tokens are needed: several times as many as the
            widest layer has inputs. Of a sharded model all processes call it, each with its own
            examples in as many batches.

    Returns:
        The report, of 0 steps; every number in it is measured on the model's weights.

    Raises:
        TypeError: ``recipe`` is none.
        ValueError: It acts in training, it does not fit the model, a pruner is attached to the
            weights, or the inputs of a layer are needed and were not seen.
        FloatingPointError: A weight is NaN or infinite, or the model's inputs are; no weight has
            changed.

    Example:
        >>> import torch, sentei
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
        >>> recipe = sentei.wanda(0.5, scope={"include": ["*.weight"]})
        >>> sentei.one_shot(model, recipe, [torch.ones(16, 8)]).sparsity
        0.5
    """
    check_type(recipe)
    hold_shards(model)
    fitted = recipe.at_once().fit(model, 1)
    sites = fitted.selection.sites
    places, part = ownership.Places(model, sites), fitted.recipe.inputs
    maps = linear_maps(model, sites) if part else {}
    state = PruningState(fitted, 1, tuple(maps))
    if ownership.is_attached(site.parameter for site in sites):
        raise ValueError("a pruner is attached to these weights: finish() or detach() it first")
    decide.check_shards(state)
    audit.check_finite(state)
    weights = Weights(state, places)
    if fitted.recipe.schedule.sparsity:
        state.allocate()
        if part:
            _observe(model, LayerInputs(model, maps, part), state, batches)
            hold_shards(model)  # the forward passes may have left whole copies in place
        state.step = 1
        decide_and_reconstruct(state, state.progress(1))
        decide.conclude(state)
        weights.write(state.progress(1), updated=True)
        torch.autograd.graph.increment_version(site.parameter for site in sites)
    report = summarize(state, model)
    updates = tuple(update.model_copy(update={"step": 0}) for update in report.updates)
    return report.model_copy(update={"step": 0, "total_steps": 0, "updates": updates})


def _observe(
    model: nn.Module, inputs: LayerInputs, state: PruningState, batches: Iterable[Any]
) -> None:
    """Call the model with every batch, its layers watched."""
    device = next(model.parameters()).device
    trains = {module: module.training for module in model.modules()}
    hooks = inputs.attach()
    inputs.evaluation = True
    try:
        model.eval()
        for number, batch in enumerate(batches):
            inputs.watch(state.inputs, number)
            if isinstance(batch, Mapping):
                model(**{name: _on(device, value) for name, value in batch.items()})
            elif isinstance(batch, list | tuple):
                model(*(_on(device, value) for value in batch))
            else:
                model(_on(device, batch))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in trains.items():
            module.training = training


def _on(device: torch.device, value: Any) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
