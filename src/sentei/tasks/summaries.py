"""A text written from a text, such as a summary, measured by ROUGE.

ROUGE is rouge_score's, with Porter's stemmer: F of words, of pairs of words and of the longest
common subsequence, means over all texts, as fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from transformers import AutoModelForSeq2SeqLM, DataCollatorForSeq2Seq, PreTrainedModel

from sentei.data.features import Features, Ragged, Tokens, check_length, chunks
from sentei.data.holdout import set_aside
from sentei.data.table import Table, no_column
from sentei.messages import counted
from sentei.tasks.metrics import check_finite
from sentei.tasks.task import OF_TABLES, Batch, Collator, Kind, Said, Unlabelled
from sentei.tasks.texts import text_cells

IGNORED: Final = -100
"""What a loss of transformers passes over."""

_SOURCES: Final = ("text", "document", "article", "dialogue", "source")
_TARGETS: Final = ("summary", "highlights", "target")


@dataclass(frozen=True)
class Pairs(Unlabelled):
    """Texts, and what is to be made of each."""

    texts: list[str]
    targets: list[str]
    source: str

    def __len__(self) -> int:
        return len(self.texts)


class Summaries(Kind[Pairs]):
    """Sequence to sequence."""

    name = "summaries"
    problem = "summarisation"
    model_class = AutoModelForSeq2SeqLM
    columns = ("text_column", "target_column")
    options = ("prefix", "max_new_tokens", "num_beams", "max_length", *OF_TABLES)
    metric_names = ("rougeL", "rouge1", "rouge2")
    default_metrics = metric_names
    packages: ClassVar = {"rouge_score": "summaries"}
    default_length = 512
    cannot_learn = (
        "an encoder-decoder's answers hang on what it has written so far, and a teacher's are not "
        "asked for yet"
    )

    def from_table(self, table: Table) -> Pairs:
        """The texts of two columns."""
        text = _column(table, self.column("text_column"), _SOURCES, "--text-column")
        target = _column(table, self.column("target_column"), _TARGETS, "--target-column")
        texts = text_cells(table, text, "--text-column")
        targets = text_cells(table, target, "--target-column")
        for row, pair in enumerate(zip(texts, targets, strict=True)):
            if not all(one.strip() for one in pair):
                empty = target if pair[0].strip() else text
                table.fail(row, f"the text in column {empty!r} is empty; take the row out.")
        return Pairs(
            texts, targets, f"{table.name} ({text} -> {target}, {counted(len(texts), 'row')})"
        )

    def split(self, examples: Pairs, fraction: float, seed: int) -> tuple[Pairs, Pairs]:
        """Some pairs set aside."""
        columns, keys = ("texts", "targets"), examples.texts
        return set_aside(examples, columns, keys, None, "row", fraction=fraction, seed=seed)

    def features(self, examples: Pairs, processor: Any, *, training: bool) -> Tokens:
        """A pair each: the text cut at ``max_length``, the target at ``max_new_tokens``."""
        length, columns = self.length(processor), dict[str, Ragged]()
        check_length(length, processor)
        prefix = self.settings.prefix or ""
        for chunk in chunks(len(examples)):
            found = processor(
                [prefix + text for text in examples.texts[chunk]],
                truncation=True,
                max_length=length,
            )
            targets = processor(
                text_target=examples.targets[chunk],
                truncation=True,
                max_length=self.settings.max_new_tokens,
            )
            given = {name: found[name] for name in ("input_ids", "attention_mask")}
            for name, values in (*given.items(), ("labels", targets["input_ids"])):
                columns.setdefault(name, Ragged()).extend(values)
        return Tokens(columns)

    def collator(self, processor: Any) -> Collator:
        """Padding of both sides to the longest of a batch."""
        return DataCollatorForSeq2Seq(processor)

    def said(self, model: PreTrainedModel, batch: Batch, processor: Any) -> Said:
        """What the model writes."""
        output = model(**batch)
        check_finite(np.asarray([float(output.loss)]))
        chosen = {} if self.settings.num_beams is None else {"num_beams": self.settings.num_beams}
        writer: Any = model
        written = writer.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=self.settings.max_new_tokens,
            do_sample=False,
            **chosen,
        )
        texts = processor.batch_decode(written, skip_special_tokens=True)
        return Said(float(output.loss), int((batch["labels"] != IGNORED).sum()), texts)

    def measure(
        self, said: Sequence[Said], examples: Pairs, features: Features
    ) -> dict[str, float]:
        """ROUGE of what was written."""
        written = [text for one in said for text in one.values]
        return self.in_order(rouge(written, examples.targets))


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
    found = [name for name in usual if name in table.columns]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(no_column(table.name, usual[0], table.columns, option) + table.hint)
    raise ValueError(
        f"{table.name} has the columns {' and '.join(map(repr, found))}; choose with {option}."
    )
