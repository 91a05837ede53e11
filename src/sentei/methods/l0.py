r"""l0 regularisation: stochastic gates on every weight, pushed shut by their expected number.

Louizos, Welling and Kingma 2018, arXiv 1712.01312; as movement pruning's authors use it (arXiv
2005.07683; huggingface/transformers, examples/research_projects/movement-pruning).

Every weight W has a log-odds S. In training, with u uniform, drawn once an optimizer step:

    s    = sigmoid((log(u / (1 - u)) + S) / temperature)
    gate = min(1, max(0, 1.2 s - 0.1))

and the module holds W gate; evaluation and what is saved use s = sigmoid(S), so a weight is pruned
where S <= log(1/11). The penalty is coefficient x mean sigmoid(S - temperature log(0.1 / 1.1)), the
expected fraction of open gates. A gate of a head or neuron multiplies the columns that read it.

What sparsity that gives depends on the task, the model and the length of training. The default
needs no coefficient: a push down in mean gradients of each matrix, as strong as the pruned fraction
is behind a cubic schedule (:class:`~sentei.parts.ScorePush`); in the last tenth of training gates
are deterministic and the count is exact. A ``coefficient`` puts the papers' penalty in place of the
push; ``PUBLISHED`` leaves the sparsity to it, as they do.

Cost: 21 bytes a weight (latent weight, log-odds, Adam's two averages and the draw in float32;
mask).

Against movement pruning's code: it draws at every forward pass, here once a step, so that
accumulated micro-batches see the same gates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sentei.methods.method import Method
from sentei.parts import (
    Adam,
    Cubic,
    Latent,
    Learned,
    Memory,
    Pattern,
    Progress,
    Scope,
    ScorePenalty,
    ScorePush,
    Threshold,
    push_down_,
)
from sentei.recipe import Recipe
from sentei.tensors import copy_kept_, cut_up, product_, zero_pruned_


class HardConcrete(Latent):
    """Gates between 0 and 1 around the mask: stochastic in training, deterministic otherwise.

    Louizos et al. 2018, arXiv 1712.01312, eq. 10 to 12: with ``low`` -0.1 and ``high`` 1.1 the gate
    is min(1, max(0, s (high - low) + low)).

    The module holds the deterministic weights except in forward passes in training mode. Once a
    budget has fixed the count, gates are deterministic in training too.
    """

    kind: Literal["hard_concrete"] = "hard_concrete"
    stochastic: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    memory: ClassVar[tuple[str, ...]] = ("noise",)
    per_unit: ClassVar[tuple[str, ...]] = ("noise",)

    low: float = Field(-0.1, lt=0)
    """Lower end of the stretched gate."""

    high: float = Field(1.1, gt=1)
    """Upper end of the stretched gate."""

    temperature: float = Field(2 / 3, gt=0)
    """Of the stochastic gate."""

    seed: int = 0
    """Of the draws."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Log-odds and noise."""
        return ("score", "noise")

    def fits(self, recipe: Any) -> None:
        """Beside learned scores, and a pattern that shuts what they shut."""
        if not recipe.score.learned:
            raise ValueError(
                "mask: hard_concrete is a gate over learned scores: use score: learned"
            )
        if recipe.pattern.fixed:
            raise ValueError(
                f"pattern {recipe.pattern.label} keeps the best of every few, open or shut, and "
                "mask: hard_concrete shuts gates by their own log-odds: use another pattern, or "
                "another method"
            )
        super().fits(recipe)

    def draw_(self, memory: Memory, step: int, number: int) -> None:
        """Noise log(u / (1 - u)), u uniform, seeded by the arguments alone."""
        noise = memory["noise"].view(-1)
        seed = ((self.seed * 1_000_003 + step) * 10_007 + number) % 2**63
        if noise.device.type != "cpu":
            generator = torch.Generator(noise.device).manual_seed(seed)
            noise.uniform_(generator=generator).clamp_(1e-4, 1 - 1e-4).logit_()
            return
        # Four 16-bit numbers of each draw: a quarter of the time, and the ends are coarser.
        source = np.random.Generator(np.random.SFC64(seed))
        middle = torch.full((), 0.5 + 2**-17, dtype=noise.dtype)
        for piece in cut_up(noise):
            draws = source.integers(0, 2**64, -(-piece.numel() // 4), dtype=np.uint64)
            piece.copy_(torch.from_numpy(draws.view(np.int16))[: piece.numel()])
            torch.add(middle, piece, alpha=2**-16, out=piece).logit_(1e-4)

    def score_gradient_(
        self, out: Tensor, gradient: Tensor, dense: Tensor, memory: Memory, sampled: bool
    ) -> None:
        """Through the gate: g x latent x d gate / d S."""
        self._through_(out, gradient, dense, self._sigmoid(memory, sampled), sampled)

    def weight_gradient_(
        self, gradient: Tensor, keep: Tensor, memory: Memory, sampled: bool
    ) -> None:
        """The gradient x gate."""
        self._gated_(gradient, keep, self._sigmoid(memory, sampled), sampled)

    def gradients_(
        self,
        out: Tensor,
        gradient: Tensor,
        dense: Tensor,
        keep: Tensor,
        memory: Memory,
        sampled: bool,
    ) -> None:
        """Both, of one sigmoid."""
        s = self._sigmoid(memory, sampled)
        self._through_(out, gradient, dense, s, sampled)
        self._gated_(gradient, keep, s, sampled)

    def write_(self, weight: Tensor, dense: Tensor, keep: Tensor, memory: Memory) -> None:
        """Latent x deterministic gate."""
        gate = self._open(self._sigmoid(memory, False))
        if weight.dtype == gate.dtype:
            copy_kept_(weight, gate.mul_(dense), keep)
        else:
            weight.copy_(gate.mul_(dense))
            zero_pruned_(weight, keep)

    def samples(self, settled: bool) -> bool:
        """Until a budget has fixed the count."""
        return not settled

    def sample_(self, weight: Tensor, dense: Tensor, keep: Tensor, memory: Memory) -> None:
        """Latent x stochastic gate."""
        gate = self._gate(self._sigmoid(memory, True))
        if weight.dtype == gate.dtype:
            torch.mul(dense, gate, out=weight)
        else:
            weight.copy_(gate.mul_(dense))

    def settle_(self, keep: Tensor, memory: Memory) -> None:
        """Open to a tenth what a fixed count keeps and its own log-odds shut.

        A tenth is about what such a gate has been in training, where a draw opens it now and then.
        At 0 it would count as kept, give nothing and learn nothing.
        """
        tenth = (0.1 - self.low) / (self.high - self.low)
        shut = memory["score"] <= math.log(-self.low / self.high)
        memory["score"].masked_fill_(keep & shut, math.log(tenth / (1 - tenth)))

    def _sigmoid(self, memory: Memory, sampled: bool) -> Tensor:
        if sampled:
            logits = memory["score"] + memory["noise"]
            return logits.mul_(1 / self.temperature).sigmoid_()
        return torch.sigmoid(memory["score"])

    def _gate(self, s: Tensor, least: float = 0.0) -> Tensor:
        """The gates of s, in its place."""
        return s.mul_(self.high - self.low).add_(self.low).clamp_(least, 1)

    def _open(self, s: Tensor) -> Tensor:
        """Those of what is kept, in its place: never 0, however rounding falls at the boundary."""
        return self._gate(s, 1e-6)

    def _through_(
        self, out: Tensor, gradient: Tensor, dense: Tensor, s: Tensor, sampled: bool
    ) -> None:
        """Write the gradient of the scores into ``out``."""
        width = self.high - self.low
        product_(out, gradient, dense)
        # torch's own backward passes: s (1 - s), and 0 outside of the ends, each in one.
        torch.ops.aten.sigmoid_backward.grad_input(out, s, grad_input=out)
        ends = -self.low / width, (1 - self.low) / width  # of s, where the gate is shut, and open
        torch.ops.aten.hardtanh_backward.grad_input(out, s, *ends, grad_input=out)
        out.mul_(width / self.temperature if sampled else width)

    def _gated_(self, gradient: Tensor, keep: Tensor, s: Tensor, sampled: bool) -> None:
        """Turn ``gradient`` into the latent weights'; ``s`` is free to be overwritten."""
        if sampled:
            gradient.mul_(self._gate(s))
            return
        gradient.mul_(self._open(s))
        zero_pruned_(gradient, keep)


class ExpectedL0(ScorePenalty):
    """The expected fraction of open gates: Louizos et al. 2018, arXiv 1712.01312, eq. 12."""

    kind: Literal["expected_l0"] = "expected_l0"

    low: float = Field(-0.1, lt=0)
    """Lower end of the stretched gate, as the mask's."""

    high: float = Field(1.1, gt=1)
    """Upper end of the stretched gate, as the mask's."""

    temperature: float = Field(2 / 3, gt=0)
    """Of the stochastic gate, as the mask's."""

    def add_(
        self, gradient: Tensor, score: Tensor, share: float | Tensor, progress: Progress
    ) -> None:
        """Push every log-odds down."""
        shift = self.temperature * math.log(-self.low / self.high)
        push_down_(gradient, score, shift, self.strength(progress) * share)


def l0(
    sparsity: float = 0.8,
    *,
    score_lr: float = 1e-1,
    push: float = 3.0,
    coefficient: float | None = None,
    initial: float = 2.197,
    follow: bool = True,
    settle: float | None = 0.1,
    warmup: float = 0.1,
    cooldown: float = 0.2,
    seed: int = 0,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """The recipe of l0 regularisation.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        score_lr: Peak learning rate of the log-odds.
        push: Of the log-odds down, in mean gradients of their matrix.
        coefficient: Weight of the expected fraction of open gates, in place of the push.
        initial: Log-odds at the start; 2.197 opens a gate with probability 0.9.
        follow: Let the penalty follow the schedule, see
            :class:`~sentei.parts.penalties.ScorePenalty`.
        settle: Fraction of training at its end with the exact count; None for what comes out.
        warmup: Fraction of training before the schedule asks for sparsity.
        cooldown: Fraction of training in which it asks for all of it.
        seed: Of the draws.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    mask = HardConcrete(seed=seed)
    penalty: ScorePenalty = ScorePush(coefficient=push, follow=follow, fades=None)
    if coefficient is not None:
        penalty = ExpectedL0(coefficient=coefficient, follow=follow)
    return Recipe(
        method="l0",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=Learned(initial=initial, optimizer=Adam(lr=score_lr)),
        schedule=Cubic(sparsity=sparsity, warmup=warmup, cooldown=cooldown, every=1),
        budget=Threshold(
            final=-mask.low / (mask.high - mask.low), rises=False, least=0.0, settle=settle
        ),
        mask=mask,
        penalties=(penalty,),
    )


PUBLISHED = {"coefficient": 125.0, "follow": False, "settle": None}
"""Movement pruning's."""

METHOD = Method(
    name="l0",
    build=l0,
    summary="stochastic gates on every weight, pushed shut by their expected number",
    paper="Louizos et al., Learning sparse neural networks through L0, ICLR 2018, arXiv 1712.01312",
    published=PUBLISHED,
)
