"""A text written from a text, such as a summary, measured by ROUGE.

ROUGE is rouge_score's, with Porter's stemmer: F of words, of pairs of words and of the longest
common subsequence, means over all texts, as fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

from pydantic import Field

from sentei.data.holdout import set_aside
from sentei.data.table import Table, no_column
from sentei.messages import counted
from sentei.tasks.examples import Unlabelled
from sentei.tasks.task import Prediction
from sentei.tasks.text import TextColumn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sentei.data.features import Features
    from sentei.tasks.task import Batch, Collator

IGNORED: Final = -100
"""What a loss of transformers passes over."""

_SOURCES: Final = ("text", "document", "article", "dialogue", "source")
_TARGETS: Final = ("summary", "highlights", "target")


@dataclass(frozen=True)
class SummaryPairs(Unlabelled):
    """Texts, and what is to be made of each."""

    texts: list[str]
    targets: list[str]
    source: str

    def __len__(self) -> int:
        return len(self.texts)

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """Some pairs set aside.

        Raises:
            ValueError: There are too few.
        """
        columns, keys = ("texts", "targets"), self.texts
        return set_aside(self, columns, keys, None, "row", fraction=fraction, seed=seed)


class Summaries(TextColumn[SummaryPairs]):
    """Sequence to sequence."""

    kind: Literal["summaries"] = "summaries"

    target_column: str | None = None
    """Column of the summary [default: summary, highlights or target]."""

    prefix: str | None = None
    """Words put before each text to be summed up, such as T5's `summarize: `."""

    max_new_tokens: int = Field(64, ge=1, le=100_000)
    """Tokens of a summary at most, of those given and those written."""

    num_beams: int | None = Field(None, ge=1, le=1000)
    """Beams of the search for a summary [default: the model's own number]."""

    title = "summarisation"
    auto_class = "AutoModelForSeq2SeqLM"
    pipeline_tag = "summarization"
    packages: ClassVar = {"rouge_score": "summaries"}
    usual_length = 512
    cannot_learn = (
        "an encoder-decoder's answers hang on what it has written so far, and a teacher's are not "
        "asked for yet"
    )

    @property
    def metric_choices(self) -> tuple[str, ...]:
        """ROUGE, three of its kind."""
        return ("rougeL", "rouge1", "rouge2")

    def from_table(self, table: Table) -> SummaryPairs:
        """The texts of two columns."""
        text = _column(table, self.text_column, _SOURCES, "--text-column")
        target = _column(table, self.target_column, _TARGETS, "--target-column")
        texts = table.texts(text, "--text-column")
        targets = table.texts(target, "--target-column")
        for row, pair in enumerate(zip(texts, targets, strict=True)):
            if not all(one.strip() for one in pair):
                empty = target if pair[0].strip() else text
                table.fail(row, f"the text in column {empty!r} is empty; take the row out.")
        rows = counted(len(texts), "row")
        return SummaryPairs(texts, targets, f"{table.name} ({text} -> {target}, {rows})")

    def features(
        self, examples: SummaryPairs, processor: Any, *, seed: int | None = None
    ) -> Features:
        """A pair each: the text cut at ``max_length``, the target at ``max_new_tokens``."""
        from sentei.data.features import Ragged, Tokens, check_length, chunks
        from sentei.models.beginnings import beginning

        length, columns = self.length(processor), dict[str, Ragged]()
        check_length(length, processor)
        prefix = self.prefix or ""
        for chunk in chunks(len(examples)):
            texts = processor(
                [beginning(prefix + text, length, processor) for text in examples.texts[chunk]],
                truncation=True,
                max_length=length,
            )
            targets = processor(
                text_target=[
                    beginning(text, self.max_new_tokens, processor)
                    for text in examples.targets[chunk]
                ],
                truncation=True,
                max_length=self.max_new_tokens,
            )
            inputs = {name: texts[name] for name in ("input_ids", "attention_mask")}
            for name, values in (*inputs.items(), ("labels", targets["input_ids"])):
                columns.setdefault(name, Ragged()).extend(values)
        return Tokens(columns, [processor.pad_token_id, columns["labels"].largest])

    def collator(self, processor: Any) -> Collator:
        """Padding of both sides to the longest of a batch."""
        from transformers import DataCollatorForSeq2Seq

        return DataCollatorForSeq2Seq(processor)

    def predict(self, model: PreTrainedModel, batch: Batch, processor: Any) -> Prediction:
        """What the model writes."""
        import numpy as np

        from sentei.tasks.metrics import check_finite

        output = model(**batch)
        check_finite(np.asarray([float(output.loss)]))
        beams = {} if self.num_beams is None else {"num_beams": self.num_beams}
        writer: Any = model
        tokens = writer.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            **beams,
        )
        texts = processor.batch_decode(tokens, skip_special_tokens=True)
        return Prediction(float(output.loss), int((batch["labels"] != IGNORED).sum()), texts)

    def metrics(
        self, predictions: Sequence[Prediction], examples: SummaryPairs, features: Features
    ) -> dict[str, float]:
        """ROUGE of what was written."""
        texts = [text for one in predictions for text in one.values]
        return self.headline_first(rouge(texts, examples.targets))


def rouge(written: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """Mean F of ROUGE-L, ROUGE-1 and ROUGE-2."""
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rougeL", "rouge1", "rouge2"]
    scorer = RougeScorer(names, use_stemmer=True)
    scores = [scorer.score(target, text) for target, text in zip(targets, written, strict=True)]
    return {name: sum(one[name].fmeasure for one in scores) / len(scores) for name in names}


def _column(table: Table, named: str | None, usual: Sequence[str], option: str) -> str:
    if named:
        return named
    present = [name for name in usual if name in table.columns]
    if len(present) == 1:
        return present[0]
    if not present:
        raise ValueError(no_column(table.name, usual[0], table.columns, option) + table.hint)
    raise ValueError(
        f"{table.name} has the columns {' and '.join(map(repr, present))}; choose with {option}."
    )
