"""A class or a number for a text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self

from pydantic import model_validator

from sentei.data.labels import in_order, parses, read_names
from sentei.data.table import Table
from sentei.messages import counted, listing, short
from sentei.models.demo import DEMO
from sentei.tasks.labelled import Labelled
from sentei.tasks.labelled_texts import LabelledTexts
from sentei.tasks.text import TextColumn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sentei.data.features import Features
    from sentei.tasks.task import Collator

MAX_CLASSES: Final = 1000
"""More distinct whole numbers than this in a label column are taken for values, not classes."""

_NUMBERS: Final = "To predict a number use --regression; for classes write whole numbers or names."

_OBVIOUS: Final[tuple[tuple[str, str | None], ...]] = (
    ("text", None),
    ("sentence", None),
    ("content", None),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
)
"""What columns of texts, and of pairs of them, are called where nobody says."""


class Classification(Labelled[LabelledTexts], TextColumn[LabelledTexts]):
    """Text or pairs of texts, classes or values."""

    kind: Literal["classification"] = "classification"

    pair_column: str | None = None
    """Column of the second text, for pairs."""

    regression: bool = False
    """The label is a number to predict, not a class."""

    auto_class = "AutoModelForSequenceClassification"
    pipeline_tag = "text-classification"
    pads = True
    caches = True

    @model_validator(mode="before")
    @classmethod
    def _own_text(cls, value: Any) -> Any:
        """Who names the column of a text of their own does not mean a known dataset's pair."""
        if isinstance(value, Mapping) and value.get("text_column"):
            return {"pair_column": None, **value}
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.pair_column and not self.text_column:
            raise ValueError("--pair-column needs --text-column beside it.")
        for option, file in (("train", self.train), ("eval", self.eval)):
            if file and self.is_demo:
                raise ValueError(
                    f"--{option} {file}: --task {DEMO} trains and evaluates on BBC news; leave "
                    "--task out to use your own files, or leave the file out"
                )
        return self

    def columns(self, examples: LabelledTexts) -> tuple[str, ...]:
        """The columns that were read, or names that are found again by themselves.

        Columns without a header keep their numbers.
        """
        if self.text_column:
            texts = [self.text_column, *filter(None, [self.pair_column])]
        else:
            texts = ["sentence1", "sentence2"] if examples.pairs else ["text"]
        return (*texts, self.label_column or "label")

    @property
    def problem(self) -> str:
        """Whether classes are learnt, or values."""
        return "regression" if self.regression else "classification"

    @property
    def metric_choices(self) -> tuple[str, ...]:
        """Metrics of classes, or of values."""
        return ("pearson", "spearman") if self.regression else ("accuracy", "f1", "matthews")

    # ------------------------------------------------------------------------------ data

    def load_parts(self) -> tuple[LabelledTexts, LabelledTexts | None]:
        """Training examples, and those to evaluate on where they are apart; the demo's too.

        Raises:
            ValueError: No source or an unusable one.
        """
        if not self.is_demo:
            return super().load_parts()
        from sentei.tasks import demo

        return demo.load_demo(seed=0)

    def from_table(self, table: Table) -> LabelledTexts:
        """The examples of a table.

        Raises:
            ValueError: They cannot be used; the message names the place and the fix.
        """
        columns = self.text_columns(table)
        texts, pairs = self.texts(table)
        label_column = self.label_column or "label"
        for row, (text, pair) in enumerate(zip(texts, pairs or texts, strict=True)):
            # GLUE's QQP has empty questions, so that one text of a pair may be empty
            if not text.strip() and not pair.strip():
                table.fail(row, f"the text in column {columns[0]!r} is empty; take the row out.")
        read, rows = " + ".join(filter(None, columns)), counted(len(texts), "row")
        source = f"{table.name} ({read} -> {label_column}, {rows})"
        if self.regression:
            cells = table.column(label_column, "--label-column")
            return LabelledTexts(texts, pairs, _values(table, cells), (), source)
        cells, names = table.labels(label_column, "--label-column"), table.classes(label_column)
        if names is None:
            labels = read_names(cells, table.fail, _NUMBERS)
            names = in_order(labels, table.name)
            if len(names) > MAX_CLASSES and all(parses(int, name) for name in names):
                raise ValueError(
                    f"{table.name}: the labels are {len(names):,} different numbers, too many for "
                    f"classes (at most {MAX_CLASSES:,}). To predict a number use --regression."
                )
        else:
            labels = [_declared(cell, partial(table.fail, row)) for row, cell in enumerate(cells)]
        index = {name: i for i, name in enumerate(names)}
        return LabelledTexts(texts, pairs, [index[label] for label in labels], names, source)

    def texts(self, table: Table) -> tuple[list[str], list[str] | None]:
        """The texts of a table, and the second ones where they are pairs.

        Raises:
            ValueError: It is not clear which columns hold them, or a cell holds no text.
        """
        text, pair = self.text_columns(table)
        texts = table.texts(text, "--text-column")
        return texts, None if pair is None else table.texts(pair, "--pair-column")

    def text_columns(self, table: Table) -> tuple[str, str | None]:
        """The columns of the text and of the second one, as named or obvious.

        Raises:
            ValueError: None is named, and none is obvious.
        """
        if self.text_column is not None:
            return self.text_column, self.pair_column
        pairs = [
            (text, pair)
            for text, pair in _OBVIOUS
            if text in table.columns and (pair is None or pair in table.columns)
        ]
        # `sentence` beside `question` is the second half of a pair, not a text of its own
        halves = {pair for _, pair in pairs}
        pairs = [(text, pair) for text, pair in pairs if text not in halves]
        if len(pairs) == 1:
            return pairs[0]
        raise ValueError(
            f"{table.name}: it is not obvious which column holds the text. Its columns are "
            f"{listing(map(short, table.columns))}; choose with --text-column.{table.hint}"
        )

    def check_training(self, examples: LabelledTexts) -> None:
        """Refuse a single class.

        Raises:
            ValueError: There is one.
        """
        if examples.label_names and len(set(examples.labels)) == 1:
            only = examples.label_names[int(examples.labels[0])]
            raise ValueError(
                f"{examples.source}: every example has the label {short(only)}. There is nothing "
                f"to learn from one class; is --label-column the right one?"
            )

    # ------------------------------------------------------------------ model and features

    def head(self, examples: LabelledTexts) -> dict[str, object]:
        """Classes, or one value."""
        if not examples.label_names:
            return {"num_labels": 1, "problem_type": "regression"}
        return super().head(examples) | {"problem_type": "single_label_classification"}

    def load_processor(self, folder: str, *, trust_remote_code: bool = False) -> Any:
        """The tokenizer; for an encoder-decoder one that takes ``</s>`` in a text for text.

        Its head reads the state at the end token, of which every text must have as many.
        """
        from sentei.models.pretrained import load_config
        from sentei.models.tokenizer import load_plainly

        trust: Any = {"trust_remote_code": trust_remote_code}
        config = load_config(folder, **trust)
        if not config.is_encoder_decoder or not isinstance(config.eos_token_id, int):
            return super().load_processor(folder, **trust)
        return self.padded(load_plainly(folder, config.eos_token_id, **trust))

    def check_model(self, model: PreTrainedModel, features: Features) -> None:
        """Refuse a model that finds no place, or not as many in every text, to read an answer at.

        Raises:
            ValueError: It does.
        """
        super().check_model(model, features)
        end = model.config.eos_token_id
        if model.config.is_encoder_decoder and isinstance(end, int):
            ends = {features[i]["input_ids"].count(end) for i in range(len(features))}
            if len(ends) > 1 or 0 in ends:
                raise ValueError(
                    f"--model: a {model.config.model_type} model classifies by its end token, "
                    f"number {end}, and the tokenizer puts {listing(map(str, sorted(ends)))} of it "
                    f"into a text: use the tokenizer that the model came with"
                )

    def features(
        self, examples: LabelledTexts, processor: Any, *, seed: int | None = None
    ) -> Features:
        """A text or pair each."""
        from sentei.data.features import tokenise

        return tokenise(examples, processor, self.length(processor))

    def collator(self, processor: Any) -> Collator:
        """Padding to the longest of a batch."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(processor)


# ------------------------------------------------------------------------------ labels


def _declared(cell: object, fail: Callable[[str], NoReturn]) -> str:
    """The name of a class out of a column that declares its classes."""
    return cell if isinstance(cell, str) else fail("there is no label; take the row out.")


def _values(table: Table, cells: list[object]) -> list[float]:
    values = list[float]()
    for row, cell in enumerate(cells):
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            table.fail(row, "there is no label; add a number or take the row out.")
        if not isinstance(cell, str | int | float) or not parses(float, cell):
            table.fail(row, f"the label {short(cell)} is not a number; regression needs numbers.")
        value = float(cell)
        if not math.isfinite(value):
            table.fail(row, f"the label is {value}; regression needs finite numbers.")
        values.append(value)
    return values
