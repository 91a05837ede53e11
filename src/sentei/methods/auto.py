r"""auto: Sentei's own recipe, PLATON with reconstruction, without dropout, taught where it can be.

PLATON (Zhang et al., ICML 2022, arXiv 2206.12562) says what is pruned and how; see its file. Four
parts are different, each because it measured better (docs/methods/auto.md):

    least squares           kept weights take over what pruned ones did (decision 24), with all
                            iterations (decision 34)
    a ramp from 5 to 50 %   with them pruning may begin earlier, and training on what is left has
                            half of all steps (decision 34)
    dropout 0               a sparse model has less to spare (Han et al. 2015, arXiv 1506.02626,
                            lower it with the root of what is left)
    L/2 + T^2 KL/2 + H      the loss for classes, where the model that pruning starts from, or
                            another, can teach; T = 2 (Sanh et al. 2020, arXiv 2005.07683), and H
                            the squared errors of the hidden states (Xu et al. 2021, arXiv
                            2104.08682). Numbers are learnt from their labels alone

Cost: PLATON's 13 bytes a weight; the products of layers' inputs; the teacher's forward pass, unless
cached.
"""

from __future__ import annotations

from collections.abc import Mapping

from sentei.methods.method import Method
from sentei.methods.platon import platon
from sentei.parts import Distillation, Pattern, Reconstruction, Scope
from sentei.parts.reconstruction import ALL_ITERATIONS
from sentei.recipe import Recipe


def auto(
    sparsity: float = 0.8,
    *,
    dropout: float = 0.0,
    labels: float = 0.5,
    logits: float = 0.5,
    hidden: float = 1.0,
    temperature: float = 2.0,
    warmup: float = 0.05,
    cooldown: float = 0.5,
    every: int = 10,
    window: int = 10,
    reconstruction: Reconstruction | Mapping[str, object] | str | None = ALL_ITERATIONS,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """Sentei's own recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        dropout: Factor on the model's dropout.
        labels: Weight of the loss on the labels, where there is a teacher.
        logits: Weight of the loss on the teacher's logits.
        hidden: Weight of the loss on its hidden states, where they can be compared.
        temperature: Divides the logits of both before softmax.
        warmup: Fraction of training before the first pruning.
        cooldown: Fraction of training at the final sparsity, deciding at every step.
        every: Optimizer steps between decisions on the ramp.
        window: Optimizer steps over which sensitivity is averaged before it is folded in.
        reconstruction: How kept weights take over what pruned ones did; None leaves it to training.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    pruning = platon(
        sparsity,
        warmup=warmup,
        cooldown=cooldown,
        every=every,
        window=window,
        pattern=pattern,
        scope=scope,
    )
    teacher = Distillation(
        labels=labels,
        logits=logits,
        hidden=hidden,
        temperature=temperature,
        regression="alone",
        required=False,
    )
    changes = {"reconstruction": reconstruction, "dropout": dropout, "distill": teacher}
    return Recipe(**{**dict(pruning), "method": "auto", **changes})


METHOD = Method(
    name="auto",
    build=auto,
    summary="Sentei's own and the default, PLATON with least squares, a teacher and no dropout",
    paper="after Zhang et al., PLATON, ICML 2022, arXiv 2206.12562",
)
