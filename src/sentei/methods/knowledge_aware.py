r"""Knowledge-aware pruning (SparseBERT): prune while distilling, in nested stages.

Xu et al., NAACL 2021, arXiv 2104.08682; authors' code DerronXu/SparseBERT at 12830f3.

The teacher is fine-tuned on the task, the student the pretrained model it came from. The student
learns from the teacher alone, while magnitude prunes each of its matrices to the same sparsity in
C = 100 stages, s = s_T (1 - (1 - c / C)^3), masks nested:

    loss = CE_soft + sum_l MSE(H_l) + sum_l MSE(A_l)

CE_soft is the cross-entropy of the student's class probabilities under the teacher's, H the hidden
states (embeddings' output first), A attention scores before softmax. A regression learns its labels
by squared error in place of CE_soft.

Theirs is a training of 85,000 steps on 60 copies of the data. ``PUBLISHED`` has its settings; the
defaults, which ask less of a short one, are ours: the student starts as its teacher, where one is
fine-tuned in the same run; the first stage ends after a tenth of training and the last leaves three
tenths to recover; each layer's error is measured by the teacher's own mean square, where that of
raw attention drowns the rest; and CE_soft, a mean over classes there, is half their sum
(as KL, with the same gradient), which is the same for two classes and does not vanish for many; and
kept weights take over what pruned ones did, at decisions (decision 24).

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
from sentei.parts import (
    Distillation,
    Magnitude,
    Pattern,
    Project,
    Reconstruction,
    Schedule,
    Scope,
    Uniform,
)
from sentei.recipe import Recipe


class Stages(Schedule):
    """The cubic ramp in a number of equal stages: s = s_T (1 - (1 - c / C)^3) after stage c of C.

    Stages end evenly between warm-up and cool-down, the last where the cool-down begins.
    (SparseBERT's code, which stops one stage, a millionth of the target, short.)
    """

    kind: Literal["stages"] = "stages"

    stages: int = Field(100, ge=1)
    """C: number of decisions."""

    warmup: float = Field(0.0, ge=0, lt=1)
    """Fraction of training before the first stage."""

    cooldown: float = Field(0.0, ge=0, lt=1)
    """Fraction of training after the last stage, spent at the final sparsity."""

    def at(self, step: int, total: int) -> float:
        """Sparsity of the stages ended by ``step``."""
        stage = self._stage(step, total)
        return self.sparsity * (1 - (1 - stage / self.stages) ** 3)

    def ramp(self, step: int, total: int) -> float:
        """Place of ``step`` between the start of the first stage and the end of the last."""
        start, end = self._ends(total)
        return (step - start) / max(end - start, 1)

    def is_update(self, step: int, total: int) -> bool:
        """Where a stage ends."""
        return self._stage(step, total) > self._stage(step - 1, total)

    def check(self, total: int) -> None:
        """Refuse fewer steps than stages."""
        start, end = self._ends(total)
        if end - start < self.stages:
            raise ValueError(
                f"schedule.stages={self.stages}: more than the {max(end - start, 0)} steps to "
                "prune in; train longer or use fewer stages"
            )

    def _stage(self, step: int, total: int) -> int:
        start, end = self._ends(total)
        passed = max(step - start, 0)
        return min(passed * self.stages // max(end - start, 1), self.stages)

    def _ends(self, total: int) -> tuple[int, int]:
        """The last step before the first stage, and the last of the last."""
        return round(self.warmup * total), total - round(self.cooldown * total)


def knowledge_aware(
    sparsity: float = 0.8,
    *,
    stages: int = 100,
    warmup: float = 0.1,
    cooldown: float = 0.3,
    student: Literal["teacher", "pretrained"] = "teacher",
    logits: float = 0.5,
    logits_loss: Literal["kl", "cross_entropy", "mse"] = "kl",
    hidden: float = 1.0,
    attention: float = 1.0,
    labels: float = 0.0,
    temperature: float = 1.0,
    relative: bool = True,
    padding: bool = False,
    teacher_dropout: bool = False,
    reconstruction: Reconstruction | Mapping[str, object] | str | None = "least_squares",
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """Knowledge-aware pruning's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        stages: C, the number of decisions.
        warmup: Fraction of training before the first stage.
        cooldown: Fraction of training at the final sparsity.
        student: Where the student starts, where its teacher is trained in the same run.
        logits: Weight of the loss on the teacher's logits.
        logits_loss: Which one; the authors' is ``cross_entropy``, with weight 1.
        hidden: Weight of the hidden states' loss.
        attention: Weight of the attention scores' loss.
        labels: Weight of the loss on the labels.
        temperature: Divides the logits before softmax.
        relative: Divide each layer's error by the mean square of the teacher's there.
        padding: Whether padding counts in those means, as in the authors' code.
        teacher_dropout: Leave the teacher's dropout on, as in the authors' code.
        reconstruction: How kept weights take over what pruned ones did; None leaves it to training.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    weights = {"labels": labels, "logits": logits, "hidden": hidden, "attention": attention}
    loss = {"logits_loss": logits_loss, "temperature": temperature, "regression": "labels"}
    errors = {"relative": relative, "padding": padding, "teacher_dropout": teacher_dropout}
    return Recipe(
        method="knowledge_aware",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=Magnitude(),
        schedule=Stages(sparsity=sparsity, stages=stages, warmup=warmup, cooldown=cooldown),
        budget=Uniform(),
        mask=Project(hold=True),
        reconstruction=reconstruction,
        distill=Distillation(**weights, **loss, **errors, student=student),
    )


PUBLISHED = {
    "warmup": 0.0,
    "cooldown": 0.0,
    "student": "pretrained",
    "logits": 1.0,
    "logits_loss": "cross_entropy",
    "relative": False,
    "reconstruction": None,
}
"""The authors'."""

METHOD = Method(
    name="knowledge_aware",
    build=knowledge_aware,
    summary="prunes by magnitude in nested stages while the student learns from its teacher",
    paper="Xu et al., Rethinking network pruning (SparseBERT), NAACL 2021, arXiv 2104.08682",
    published=PUBLISHED,
)
