"""What tasks with one label for a whole example share, whatever their model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sentei.tasks.task import E, Prediction, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sentei.data.features import Features
    from sentei.tasks.task import Batch


class Labelled(Task[E]):
    """A class or a value for each example: logits beside labels."""

    label_column: str | None = None
    """Column of the label [default: label]."""

    any_order = True
    one_pass = True

    @property
    def usual_metrics(self) -> tuple[str, ...]:
        """The first two."""
        return self.metric_choices[:2]

    def predict(self, model: PreTrainedModel, batch: Batch, processor: object) -> Prediction:
        """Logits beside the true labels."""
        output = model(**batch)
        labels = batch["labels"].cpu().numpy()
        logits = output.logits.float().cpu().numpy()
        return Prediction(float(output.loss), len(labels), (logits, labels))

    def metrics(
        self, predictions: Sequence[Prediction], examples: E, features: Features
    ) -> dict[str, float]:
        """The metrics of the classes or values."""
        import numpy as np

        from sentei.tasks import metrics

        logits, labels = zip(*(one.values for one in predictions), strict=True)
        return metrics.compute(self.metric_names, np.concatenate(logits), np.concatenate(labels))
