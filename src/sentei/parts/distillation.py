"""What a teacher is asked for while its student is pruned, and how much each answer weighs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sentei.parts.part import Part


class Distillation(Part):
    """The training loss, where a teacher takes part in it.

    loss = labels L_task + logits L_logits + hidden sum_l MSE(H_l) + attention sum_l MSE(A_l)

    L_task is the model's own loss on the labels; H are hidden states, the embedding output first; A
    are attention scores before softmax, or probabilities after it. A weight of 0 leaves its term
    out, and the teacher is not asked for it. The defaults are movement pruning's: half labels, half
    logits at temperature 2.
    """

    labels: float = Field(0.5, ge=0)
    """Weight of the model's own loss on the labels."""

    logits: float = Field(0.5, ge=0)
    """Weight of the loss on the teacher's logits."""

    logits_loss: Literal["kl", "cross_entropy", "mse"] = "kl"
    """``kl``: T^2 KL(teacher || student), a mean over the batch (Hinton et al., movement pruning,
    LEAP). ``cross_entropy``: a mean over batch and classes, without the T^2 (SparseBERT). ``mse``:
    of the logits themselves. Regression always takes the squared error."""

    temperature: float = Field(2.0, gt=0)
    """Divides the logits of both before softmax."""

    regression: Literal["teacher", "labels", "alone"] = "teacher"
    """What a regression's logit is drawn to by the ``logits`` term: the teacher's, or the labels
    (SparseBERT). ``alone``: numbers are learnt without a teacher."""

    hidden: float = Field(0.0, ge=0)
    """Weight of the hidden states: the sum over layers of their mean squared errors."""

    attention: float = Field(0.0, ge=0)
    """Weight of the attention: the sum over layers of its mean squared errors."""

    attention_of: Literal["scores", "probabilities"] = "scores"
    """What of the attention is compared: its scores before softmax (SparseBERT), or its
    probabilities, which make a far smaller term (LEAP's code, where the student's are those after
    dropout)."""

    relative: bool = False
    """Divide each layer's squared error, of hidden states and of attention, by the mean square of
    the teacher's there: every layer of every model then weighs alike, and about as much as the
    logits. The papers do not."""

    padding: bool = False
    """Whether hidden states and attention of padding count too, as in SparseBERT's and
    LEAP's code."""

    fade: tuple[float, float] | None = None
    """Two fractions of training: from the first to the second the teacher's terms fall to 0 in a
    line, and the labels gain what the logits lose. None keeps the teacher to the end."""

    layers: tuple[int, ...] | None = None
    """The teacher's layer for each of the student's, from 1. None spreads them evenly, the last to
    the last."""

    student: Literal["teacher", "pretrained"] = "teacher"
    """Where a student of the teacher's own shape starts when the teacher was trained in the same
    run: from the teacher's weights, or from those the teacher started from (SparseBERT)."""

    required: bool = True
    """Whether to refuse to prune without a teacher: where none is named and the model has no head
    trained for the task. False prunes on the labels alone then, and without hidden states where the
    two models' cannot be compared, and says so."""

    teacher_dropout: bool = False
    """Leave the teacher's dropout on, as SparseBERT's code does by oversight."""

    @property
    def labels_only(self) -> bool:
        """Whether a regression learns nothing from its teacher."""
        looks = self.hidden or self.attention
        return self.regression == "alone" or (self.regression == "labels" and not looks)

    @property
    def asks(self) -> bool:
        """Whether the teacher has a part in the loss."""
        return bool(self.logits or self.hidden or self.attention)

    def at(self, progress: float) -> Distillation:
        """With the weights that hold when this fraction of training is done, in [0, 1]."""
        if self.fade is None:
            return self
        begin, end = self.fade
        left = min(max((end - progress) / (end - begin), 0.0), 1.0)
        weights = {name: left * getattr(self, name) for name in ("logits", "hidden", "attention")}
        weights["labels"] = self.labels + self.logits - weights["logits"]
        return self.model_copy(update=weights)

    @model_validator(mode="after")
    def _some_term(self) -> Distillation:
        if not self.asks:
            raise ValueError("all of logits, hidden and attention are 0: the teacher has no say")
        return self

    @model_validator(mode="after")
    def _fade_leaves_labels(self) -> Distillation:
        if self.fade is None:
            return self
        if not 0 <= self.fade[0] < self.fade[1] <= 1:
            raise ValueError(
                f"fade={self.fade}: name the fraction of training from which on the teacher fades "
                "and that at which it is gone, 0 <= begin < end <= 1, such as [0.1, 0.6]"
            )
        if not self.labels:
            raise ValueError(
                "labels=0: nothing would be learnt from once the teacher has faded: give the "
                "labels a weight, or keep the teacher with fade=null"
            )
        return self
