"""The next token of running text, measured by perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from sentei.tasks.running_text import Documents, RunningText, perplexity
from sentei.tasks.task import Prediction

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sentei.data.features import Features
    from sentei.tasks.task import Batch


class Language(RunningText):
    """Causal language modelling."""

    kind: Literal["language"] = "language"

    title = "language modelling"
    auto_class = "AutoModelForCausalLM"
    pipeline_tag = "text-generation"

    @property
    def metric_choices(self) -> tuple[str, ...]:
        """Perplexity alone."""
        return ("perplexity",)

    def features(self, examples: Documents, processor: Any, *, seed: int | None = None) -> Features:
        """Blocks of all texts end to end, the tokenizer's end-of-text token behind each.

        Raises:
            ValueError: They do not fill one.
        """
        from sentei.tasks.blocks import pack

        return pack(examples.rows, examples.source, processor, self.length(processor))

    def check_model(self, model: PreTrainedModel, features: Features) -> None:
        """Refuse a model that is too short for the blocks or sees what comes after a token.

        Raises:
            ValueError: It is or does.
        """
        from sentei.tasks.blocks import check_causal

        check_causal(model, features)

    def predict(self, model: PreTrainedModel, batch: Batch, processor: Any) -> Prediction:
        """The loss; of a block, all tokens but the first are guessed."""
        rows, length = batch["labels"].shape
        return Prediction(float(model(**batch).loss), rows * (length - 1), None)

    def metrics(
        self, predictions: Sequence[Prediction], examples: Documents, features: Features
    ) -> dict[str, float]:
        """Perplexity of a token."""
        return {"perplexity": perplexity(predictions)}
