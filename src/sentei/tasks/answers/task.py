"""Questions answered by a part of a text, as in SQuAD 1.1 and 2.0.

Files are SQuAD's own, or tables of questions, contexts and answers. Long contexts are read in
windows that overlap; a question's answer is the likeliest span over its windows. Where some
question of the evaluation data has no answer, the place before the question competes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from sentei.data.formats import read_text, suffix
from sentei.data.holdout import hold_out, part_names
from sentei.data.table import Table
from sentei.messages import counted
from sentei.tasks.answers import files
from sentei.tasks.answers.files import Question
from sentei.tasks.answers.scores import BestAnswer, scores
from sentei.tasks.examples import Unlabelled
from sentei.tasks.task import Prediction
from sentei.tasks.text import TableTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sentei.data.features import Features
    from sentei.tasks.answers.windows import Windows
    from sentei.tasks.task import Batch, Collator


@dataclass(frozen=True)
class Questions(Unlabelled):
    """Questions on contexts."""

    rows: list[Question]
    source: str

    @classmethod
    def of(cls, rows: list[Question], name: str) -> Self:
        """The questions of the source of that name."""
        answered = sum(bool(one.answers) for one in rows)
        some = "" if answered == len(rows) else f", {answered:,} with an answer"
        return cls(rows, f"{name}, {counted(len(rows), 'question')}{some}")

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """Some contexts set aside, with all their questions.

        Raises:
            ValueError: There are too few.
        """
        contexts = list(dict.fromkeys(one.context for one in self.rows))
        _, aside = hold_out(contexts, None, fraction=fraction, seed=seed, source=self.source)
        chosen = {contexts[i] for i in aside}
        names = part_names(fraction, seed, stratified=False)

        apart = [one for one in self.rows if one.context in chosen]
        rest = [one for one in self.rows if one.context not in chosen]
        return self._part(rest, names[0]), self._part(apart, names[1])

    def _part(self, rows: list[Question], name: str) -> Self:
        source = f"{self.source}: {name} by context, {counted(len(rows), 'question')}"
        return replace(self, rows=rows, source=source)


class QuestionAnswering(TableTask[Questions]):
    """Extractive question answering."""

    kind: Literal["answers"] = "answers"

    question_column: str | None = None
    """Column of the question [default: question]."""

    context_column: str | None = None
    """Column of the text that holds the answer [default: context]."""

    answers_column: str | None = None
    """Column of the answers, as in the hub's squad [default: answers]."""

    doc_stride: int = Field(128, ge=0)
    """Tokens that two windows of a long context share."""

    max_answer_length: int = Field(30, ge=1)
    """Tokens of an answer at most."""

    null_threshold: float = Field(0.0, allow_inf_nan=True)
    """How far the score of no answer must lie above that of the best answer to be given."""

    title = "question answering"
    auto_class = "AutoModelForQuestionAnswering"
    pipeline_tag = "question-answering"
    one_each = False
    one_pass = True
    pads = True
    usual_length = 384

    @property
    def metric_choices(self) -> tuple[str, ...]:
        """Overlap of words, and whole answers."""
        return ("f1", "exact_match")

    # ------------------------------------------------------------------------------ data

    def read(self, path: Path, splits: Sequence[str]) -> Questions:
        """The questions of a file in SQuAD's format, a table or a saved dataset.

        Raises:
            ValueError: It cannot be used; names the place, the reason and the fix.
        """
        if path.is_file() and suffix(path) == ".json":
            text = read_text(path, self.encoding)
            if text.lstrip().startswith("{"):
                return Questions.of(files.read(path, text), str(path))
        return super().read(path, splits)

    def from_table(self, table: Table) -> Questions:
        """The questions of a table.

        Raises:
            ValueError: They cannot be used; names the row.
        """
        questions = table.texts(self.question_column or "question", "--question-column")
        contexts = table.texts(self.context_column or "context", "--context-column")
        cells = table.column(self.answers_column or "answers", "--answers-column")
        rows = list[Question]()
        for row, cell in enumerate(cells):
            answers = files.from_cells(cell, partial(table.fail, row))
            question = Question(questions[row], contexts[row], answers)
            if reason := files.fault(question):
                table.fail(row, reason)
            rows.append(question)
        return Questions.of(rows, table.name)

    def check_training(self, examples: Questions) -> None:
        """Refuse questions of which none has an answer.

        Raises:
            ValueError: None has.
        """
        if not any(question.answers for question in examples.rows):
            raise ValueError(
                f"{examples.source}: no question has an answer, so that there is nothing to "
                f"learn; see --answers-column."
            )

    # ------------------------------------------------------------------ model and features

    def load_processor(self, folder: str, *, trust_remote_code: bool = False) -> Any:
        """The tokenizer, padding behind, so that the places of answers stay what they are."""
        tokenizer = super().load_processor(folder, trust_remote_code=trust_remote_code)
        tokenizer.padding_side = "right"
        return tokenizer

    def features(self, examples: Questions, processor: Any, *, seed: int | None = None) -> Features:
        """A window or more for each question."""
        from sentei.tasks.answers.windows import windows

        return windows(examples.rows, processor, self.length(processor), self.doc_stride)

    def truncated(self, features: Features, processor: Any) -> None:
        """Nothing is cut."""

    def collator(self, processor: Any) -> Collator:
        """Padding to the longest of a batch."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(processor)

    # --------------------------------------------------------------------------- metrics

    def predict(self, model: PreTrainedModel, batch: Batch, processor: Any) -> Prediction:
        """The scores of every token as first and last of the answer, without padding."""
        from sentei.tasks.metrics import check_finite

        output = model(**batch)
        real = batch["attention_mask"].bool().cpu().numpy()
        starts = output.start_logits.float().cpu().numpy()
        ends = output.end_logits.float().cpu().numpy()
        check_finite(starts + ends)
        values = [(starts[i][real[i]], ends[i][real[i]]) for i in range(len(real))]
        return Prediction(float(output.loss), len(values), values)

    def metrics(
        self, predictions: Sequence[Prediction], examples: Questions, features: Features
    ) -> dict[str, float]:
        """Exact match and F1 of the likeliest answers."""
        from sentei.tasks.answers.windows import Windows

        assert isinstance(features, Windows)
        logits = [value for one in predictions for value in one.values]
        best = self.best_answers(logits, examples, features)
        truth = [[answer.text for answer in one.answers] for one in examples.rows]
        return self.headline_first(scores(best, truth, self.null_threshold))

    def best_answers(
        self, logits: Sequence[tuple[Any, Any]], examples: Questions, features: Windows
    ) -> list[BestAnswer]:
        """The likeliest answer to each question, over all its windows."""
        from sentei.tasks.answers.windows import best_span

        best: dict[int, tuple[float, str]] = {}
        none: dict[int, float] = {}
        for i, (starts, ends) in enumerate(logits):
            question, place = features.question[i], features.nowhere[i]
            none[question] = min(
                none.get(question, float("inf")), float(starts[place] + ends[place])
            )
            span = best_span(starts, ends, features.offsets(i), longest=self.max_answer_length)
            if span and (question not in best or span.score > best[question][0]):
                text = examples.rows[question].context[span.start : span.stop].strip()
                best[question] = span.score, text
        answers = list[BestAnswer]()
        for question in range(len(examples)):
            score, text = best.get(question, (float("-inf"), ""))
            answers.append(BestAnswer(text, none[question] - score))
        return answers
