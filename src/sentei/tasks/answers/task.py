"""Questions answered by a part of a text, as in SQuAD 1.1 and 2.0.

Files are SQuAD's own, or tables of questions, contexts and answers. Long contexts are read in
windows that overlap; a question's answer is the likeliest span over its windows. Where some
question of the evaluation data has no answer, the place before the question competes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding, PreTrainedModel

from sentei.data.features import Features
from sentei.data.formats import read_text
from sentei.data.holdout import hold_out, part_names
from sentei.data.table import Table
from sentei.messages import counted
from sentei.tasks.answers import scores as squad
from sentei.tasks.answers.scores import Prediction, Question
from sentei.tasks.answers.windows import Windows, best_span, windows
from sentei.tasks.metrics import check_finite
from sentei.tasks.task import OF_TABLES, Batch, Collator, Kind, Said, Unlabelled
from sentei.tasks.texts import text_cells


@dataclass(frozen=True)
class Questions(Unlabelled):
    """Questions on contexts."""

    rows: list[Question]
    source: str

    def __len__(self) -> int:
        return len(self.rows)


class Answers(Kind[Questions]):
    """Extractive question answering."""

    name = "answers"
    problem = "question answering"
    one_each = False
    pads = True
    model_class = AutoModelForQuestionAnswering
    columns = ("question_column", "context_column", "answers_column")
    options = ("doc_stride", "max_answer_length", "null_threshold", "max_length", *OF_TABLES)
    metric_names = ("f1", "exact_match")
    default_metrics = metric_names
    default_length = 384

    def read(self, path: Path, splits: Sequence[str]) -> Questions:
        """The questions of a file in SQuAD's format, a table or a saved dataset.

        Raises:
            ValueError: It cannot be used; names the place, the reason and the fix.
        """
        if path.suffix.lower() == ".json":
            text = read_text(path, self.settings.encoding)
            if text.lstrip().startswith("{"):
                return _questions(squad.read(path, text), str(path))
        return super().read(path, splits)

    def from_table(self, table: Table) -> Questions:
        """The questions of a table."""

        def name(setting: str) -> str:
            return self.column(setting) or setting.removesuffix("_column")

        asked = text_cells(table, name("question_column"), "--question-column")
        contexts = text_cells(table, name("context_column"), "--context-column")
        cells = table.column(name("answers_column"), "--answers-column")
        rows = list[Question]()
        for row, cell in enumerate(cells):
            answers = squad.from_cells(cell, partial(table.fail, row))
            question = Question(asked[row], contexts[row], answers)
            if reason := squad.wrong(question):
                table.fail(row, reason)
            rows.append(question)
        return _questions(rows, table.name)

    def from_files(self, train: Path, evaluation: Path | None) -> tuple[Questions, Questions]:
        """Both parts; some question to train on must have an answer.

        Raises:
            ValueError: None has.
        """
        both = super().from_files(train, evaluation)
        if not any(question.answers for question in both[0].rows):
            raise ValueError(
                f"{both[0].source}: no question has an answer, so that there is nothing to learn; "
                f"see --answers-column."
            )
        return both

    def split(self, examples: Questions, fraction: float, seed: int) -> tuple[Questions, Questions]:
        """Some contexts set aside, with all their questions."""
        contexts = list(dict.fromkeys(one.context for one in examples.rows))
        _, aside = hold_out(contexts, None, fraction=fraction, seed=seed, source=examples.source)
        chosen = {contexts[i] for i in aside}
        names = part_names(fraction, seed, stratified=False)

        def part(inside: bool, what: str) -> Questions:
            rows = [one for one in examples.rows if (one.context in chosen) is inside]
            source = f"{examples.source}: {what} by context, {counted(len(rows), 'question')}"
            return Questions(rows, source)

        return part(False, names[0]), part(True, names[1])

    def load_processor(self, folder: str) -> Any:
        """The tokenizer, padding behind, so that the places of answers stay what they are."""
        tokenizer = super().load_processor(folder)
        tokenizer.padding_side = "right"
        return tokenizer

    def features(self, examples: Questions, processor: Any, *, training: bool) -> Windows:
        """A window or more for each question."""
        overlap = self.settings.doc_stride
        return windows(examples.rows, processor, self.length(processor), overlap)

    def truncated(self, features: Features, processor: Any) -> None:
        """Nothing is cut."""

    def collator(self, processor: Any) -> Collator:
        """Padding to the longest of a batch."""
        return DataCollatorWithPadding(processor)

    def said(self, model: PreTrainedModel, batch: Batch, processor: Any) -> Said:
        """The scores of every token as first and last of the answer, without padding."""
        output = model(**batch)
        real = batch["attention_mask"].bool().cpu().numpy()
        starts = output.start_logits.float().cpu().numpy()
        ends = output.end_logits.float().cpu().numpy()
        check_finite(starts + ends)
        values = [(starts[i][real[i]], ends[i][real[i]]) for i in range(len(real))]
        return Said(float(output.loss), len(values), values)

    def measure(
        self, said: Sequence[Said], examples: Questions, features: Features
    ) -> dict[str, float]:
        """Exact match and F1 of the likeliest answers."""
        assert isinstance(features, Windows)
        logits = [value for one in said for value in one.values]
        predictions = self.predict(logits, examples, features)
        truth = [[answer.text for answer in one.answers] for one in examples.rows]
        return self.in_order(squad.scores(predictions, truth, self.settings.null_threshold))

    def predict(
        self, logits: Sequence[tuple[Any, Any]], examples: Questions, features: Windows
    ) -> list[Prediction]:
        """The likeliest answer to each question, over all its windows."""
        best: dict[int, tuple[float, str]] = {}
        none: dict[int, float] = {}
        for i, (starts, ends) in enumerate(logits):
            question, place = features.question[i], features.nowhere[i]
            none[question] = min(
                none.get(question, float("inf")), float(starts[place] + ends[place])
            )
            found = best_span(
                starts, ends, features.offsets(i), longest=self.settings.max_answer_length
            )
            if found and (question not in best or found.score > best[question][0]):
                text = examples.rows[question].context[found.start : found.stop].strip()
                best[question] = found.score, text
        predictions = list[Prediction]()
        for question in range(len(examples)):
            score, text = best.get(question, (float("-inf"), ""))
            predictions.append(Prediction(text, none[question] - score))
        return predictions


def _questions(rows: list[Question], name: str) -> Questions:
    answered = sum(bool(one.answers) for one in rows)
    some = "" if answered == len(rows) else f", {answered:,} with an answer"
    return Questions(rows, f"{name}, {counted(len(rows), 'question')}{some}")
