"""Tokens of running text that are hidden from the model, as BERT was pretrained.

Of the tokens of a block, or of its words, each is chosen with one probability. Of the chosen tokens
80 % are replaced by the mask token, 10 % by a token drawn from the vocabulary, and 10 % stay as
they are; the model is to say what stood there (Devlin et al., 2019, arXiv 1810.04805). Perplexity
is that of the chosen tokens, each guessed from what is left of its block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sentei.tasks.running_text import Documents, RunningText, perplexity
from sentei.tasks.task import Prediction

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sentei.data.features import Features
    from sentei.tasks.task import Batch


class MaskedText(RunningText):
    """Masked language modelling."""

    kind: Literal["masked-text"] = "masked-text"

    mask_probability: float = Field(0.15, gt=0, lt=1)
    """Probability of a token, or of a word, of running text to be masked."""

    whole_words: bool = False
    """Mask all tokens of a word or none."""

    title = "masked language modelling"
    auto_class = "AutoModelForMaskedLM"
    pipeline_tag = "fill-mask"
    new_head = "brings no head that guesses masked tokens: one is drawn, and learnt with the rest"

    @property
    def metric_choices(self) -> tuple[str, ...]:
        """Perplexity of the masked tokens, and how many of them are the model's first guess."""
        return ("perplexity", "accuracy")

    def features(self, examples: Documents, processor: Any, *, seed: int | None = None) -> Features:
        """Blocks of all texts end to end, masked anew in every epoch; without a seed always alike.

        Raises:
            ValueError: They do not fill one, or it cannot be masked.
        """
        from sentei.tasks.masked_blocks import Masking, pack

        masking = Masking.of(processor, self.mask_probability, whole_words=self.whole_words)
        length = self.length(processor)
        return pack(examples.rows, examples.source, processor, length, masking, seed)

    def check_model(self, model: PreTrainedModel, features: Features) -> None:
        """Refuse a model that is too short for the blocks, or that does not guess in place.

        Raises:
            ValueError: It is or does not.
        """
        super().check_model(model, features)
        if model.config.is_encoder_decoder:
            raise ValueError(
                f"--model: a {model.config.model_type} model writes its answers one after another, "
                "and masked tokens are guessed in their places; name an encoder, such as BERT"
            )

    def predict(self, model: PreTrainedModel, batch: Batch, processor: Any) -> Prediction:
        """The loss, and how many of the masked tokens are the likeliest to the model."""
        output, labels = model(**batch), batch["labels"]
        masked = labels >= 0
        right = output.logits[masked].argmax(-1) == labels[masked]
        return Prediction(float(output.loss), int(masked.sum()), int(right.sum()))

    def metrics(
        self, predictions: Sequence[Prediction], examples: Documents, features: Features
    ) -> dict[str, float]:
        """Perplexity and accuracy of the masked tokens."""
        right = sum(one.values for one in predictions)
        labels = sum(one.labels for one in predictions)
        return self.headline_first(
            {"perplexity": perplexity(predictions), "accuracy": right / labels}
        )
