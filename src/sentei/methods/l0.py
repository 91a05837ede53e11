r"""l0 regularisation: stochastic gates on every weight, pushed shut by their expected number.

Louizos, Welling and Kingma 2018, arXiv 1712.01312; as movement pruning's authors use it (arXiv
2005.07683; huggingface/transformers, examples/research_projects/movement-pruning).

Every weight W has a log-odds S. In training, with u uniform, drawn once an optimizer step:

    s    = sigmoid((log(u / (1 - u)) + S) / temperature)
    gate = min(1, max(0, 1.2 s - 0.1))

and the module holds W gate; evaluation and what is saved use s = sigmoid(S), so a weight is pruned
where S <= log(1/11). The penalty is coefficient x mean sigmoid(S - temperature log(0.1 / 1.1)), the
expected fraction of open gates.

What sparsity that gives depends on the task, the model and the length of training. By default the
penalty follows a cubic schedule, as strong as the pruned fraction is behind it; and in the last
tenth of training gates are deterministic and the count is exact.
``follow=False, settle=None`` leaves the sparsity to the coefficient, as the papers do.

Cost: 21 bytes a weight (latent weight, log-odds, Adam's two averages and the draw in float32;
mask).

Against movement pruning's code: it draws at every forward pass, here once a step, so that
accumulated micro-batches see the same gates.
"""

from __future__ import annotations

from collections.abc import Mapping

from sentei.methods.method import Method
from sentei.parts.budget import Threshold
from sentei.parts.learning import Adam
from sentei.parts.masks import HardConcrete
from sentei.parts.patterns import Pattern
from sentei.parts.penalties import ExpectedL0
from sentei.parts.schedule import Cubic
from sentei.parts.scope import Scope
from sentei.parts.scores import Learned
from sentei.recipe import Recipe


def l0(
    sparsity: float = 0.8,
    *,
    score_lr: float = 1e-1,
    coefficient: float = 125.0,
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
        coefficient: Weight of the expected fraction of open gates.
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
        penalties=(ExpectedL0(coefficient=coefficient, follow=follow),),
    )


METHOD = Method(
    name="l0",
    build=l0,
    summary="stochastic gates on every weight, pushed shut by their expected number",
    paper="Louizos et al., Learning sparse neural networks through L0, ICLR 2018, arXiv 1712.01312",
)
