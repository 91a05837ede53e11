r"""Knowledge-aware pruning (SparseBERT): prune while distilling, in nested stages.

Xu et al., NAACL 2021, arXiv 2104.08682; authors' code DerronXu/SparseBERT at 12830f3.

The teacher is fine-tuned on the task, the student the pretrained model it came from. The student
learns from the teacher alone, while magnitude prunes each of its matrices to the same sparsity in
C = 100 stages, s = s_T (1 - (1 - c / C)^3), masks nested:

    loss = CE_soft + sum_l MSE(H_l) + sum_l MSE(A_l)

CE_soft is the cross-entropy of the student's class probabilities under the teacher's, H the hidden
states (embeddings' output first), A attention scores before softmax. A regression learns its labels
by squared error in place of CE_soft.

Cost: 1 byte a weight (the mask); the teacher's forward pass, unless cached, and its activations.

Against the authors' code: the teacher is in eval mode (theirs keeps dropout by oversight:
``teacher_dropout``); padding does not count in the means (``padding``); the last stage ends with
training and not one stage before; no relu between pooler and classifier. They train with BERT's
Adam at a constant learning rate on augmented data, about 60 copies an example for MRPC: see
``sentei augment``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from sentei.methods.method import Method
from sentei.parts import Distillation, Magnitude, Pattern, Project, Schedule, Scope, Uniform
from sentei.recipe import Recipe


class Stages(Schedule):
    """The cubic ramp in a number of equal stages: s = s_T (1 - (1 - c / C)^3) after stage c of C.

    Stages end evenly over training, the last with its last step. (SparseBERT's code, which stops
    one stage, a millionth of the target, short.)
    """

    kind: Literal["stages"] = "stages"

    stages: int = Field(100, ge=1)
    """C: number of decisions."""

    cooldown: float = Field(0.0, ge=0, lt=1)
    """Fraction of training after the last stage, spent at the final sparsity."""

    def at(self, step: int, total: int) -> float:
        """Sparsity of the stages ended by ``step``."""
        stage = self._stage(step, total)
        return self.sparsity * (1 - (1 - stage / self.stages) ** 3)

    def ramp(self, step: int, total: int) -> float:
        """Place of ``step`` before the end of the last stage."""
        return step / self._end(total)

    def is_update(self, step: int, total: int) -> bool:
        """Where a stage ends."""
        return self._stage(step, total) > self._stage(step - 1, total)

    def check(self, total: int) -> None:
        """Refuse fewer steps than stages."""
        if self._end(total) < self.stages:
            raise ValueError(
                f"schedule.stages={self.stages}: more than the {self._end(total)} steps to prune "
                "in; train longer or use fewer stages"
            )

    def _stage(self, step: int, total: int) -> int:
        return min(max(step, 0) * self.stages // self._end(total), self.stages)

    def _end(self, total: int) -> int:
        return total - round(self.cooldown * total)


def knowledge_aware(
    sparsity: float = 0.8,
    *,
    stages: int = 100,
    cooldown: float = 0.0,
    hidden: float = 1.0,
    attention: float = 1.0,
    labels: float = 0.0,
    temperature: float = 1.0,
    padding: bool = False,
    teacher_dropout: bool = False,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """Knowledge-aware pruning's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        stages: C, the number of decisions.
        cooldown: Fraction of training at the final sparsity; the authors have none.
        hidden: Weight of the hidden states' loss.
        attention: Weight of the attention scores' loss.
        labels: Weight of the loss on the labels.
        temperature: Divides the logits before softmax.
        padding: Whether padding counts in those means, as in the authors' code.
        teacher_dropout: Leave the teacher's dropout on, as in the authors' code.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    return Recipe(
        method="knowledge_aware",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=Magnitude(),
        schedule=Stages(sparsity=sparsity, stages=stages, cooldown=cooldown),
        budget=Uniform(),
        mask=Project(hold=True),
        distill=Distillation(
            labels=labels,
            logits=1.0,
            logits_loss="cross_entropy",
            temperature=temperature,
            regression="labels",
            hidden=hidden,
            attention=attention,
            padding=padding,
            student="pretrained",
            teacher_dropout=teacher_dropout,
        ),
    )


METHOD = Method(
    name="knowledge_aware",
    build=knowledge_aware,
    summary="prunes by magnitude in nested stages while the student learns from its teacher",
    paper="Xu et al., Rethinking network pruning (SparseBERT), NAACL 2021, arXiv 2104.08682",
)
