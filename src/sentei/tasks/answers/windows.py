"""Long contexts in windows: what a model reads, and the spans that its scores mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentei.data.features import Ragged, Tokens, check_length, chunks
from sentei.messages import counted, short
from sentei.models.beginnings import beginning
from sentei.tasks.answers.files import Answer, Question

Offsets = NDArray[np.int64]
"""For each token of a window, where in the context it begins and ends; -1 outside the context."""


class Windows(Tokens):
    """Questions before windows of their contexts.

    ``start_positions`` and ``end_positions`` are the tokens of the first answer, or the place that
    stands for none. ``question`` is the number of each window's question.
    """

    def __init__(
        self,
        columns: dict[str, Ragged | list[int]],
        *,
        nowhere: list[int],
        question: list[int],
        begins: Ragged,
        ends: Ragged,
        padding: int | None = None,
    ) -> None:
        super().__init__(columns, [padding])
        self.nowhere = nowhere
        self.question = question
        self._begins, self._ends = begins, ends
        questions = len(set(question))
        self.summary = f"{counted(len(self), 'window')} of {counted(questions, 'question')}"

    def offsets(self, index: int) -> Offsets:
        """Of the tokens of a window."""
        return np.stack([self._begins[index], self._ends[index]], axis=1)


def windows(
    questions: Sequence[Question], tokenizer: Any, max_length: int, overlap: int
) -> Windows:
    """Tokenise questions with their contexts, in windows where they are too long.

    Args:
        questions: What is asked.
        tokenizer: Of the model.
        max_length: Tokens of a window, question and special tokens included.
        overlap: Tokens that two windows of a context share.

    Raises:
        ValueError: ``max_length`` is more than the model takes, or a question leaves no room.
    """
    check_length(max_length, tokenizer, pair=True)
    columns: dict[str, Ragged] = {}
    begins, ends = Ragged(), Ragged()
    starts, stops, nowhere, owners = list[int](), list[int](), list[int](), list[int]()
    for chunk in chunks(len(questions)):
        some = questions[chunk]
        _check_room(some, tokenizer, max_length, overlap)
        rows = tokenizer(
            [one.question.strip() for one in some],
            [one.context for one in some],
            truncation="only_second",
            max_length=max_length,
            stride=overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        owner = rows.pop("overflow_to_sample_mapping")
        offsets = [
            _of_context(pairs, rows.sequence_ids(i))
            for i, pairs in enumerate(rows.pop("offset_mapping"))
        ]
        for window, (places, number) in enumerate(zip(offsets, owner, strict=True)):
            ids, parts = rows["input_ids"][window], rows.sequence_ids(window)
            none = _place_of_none(ids, parts, tokenizer.cls_token_id)
            start, stop = token_span(some[number].answers, places) or (none, none)
            starts.append(start)
            stops.append(stop)
            nowhere.append(none)
            owners.append(chunk.start + number)
        for name, values in rows.items():
            columns.setdefault(name, Ragged()).extend(values)
        begins.extend([places[:, 0].tolist() for places in offsets])
        ends.extend([places[:, 1].tolist() for places in offsets])
    return Windows(
        {**columns, "start_positions": starts, "end_positions": stops},
        nowhere=nowhere,
        question=owners,
        begins=begins,
        ends=ends,
        padding=tokenizer.pad_token_id,
    )


def _check_room(
    questions: Sequence[Question], tokenizer: Any, max_length: int, overlap: int
) -> None:
    special = tokenizer.num_special_tokens_to_add(pair=True)
    texts = [beginning(one.question.strip(), max_length, tokenizer) for one in questions]
    rows = tokenizer(texts, add_special_tokens=False, verbose=False)
    for question, text, ids in zip(questions, texts, rows["input_ids"], strict=True):
        room = max_length - special - len(ids)
        if room <= overlap:
            more = " or more" if len(text) < len(question.question.strip()) else ""
            raise ValueError(
                f"the question {short(question.question)} has {counted(len(ids), 'token')}{more}, "
                f"which leaves {max(room, 0)} of --max-length {max_length} for its context, and "
                f"windows share {overlap}: raise --max-length, lower --doc-stride, or shorten it."
            )


def _place_of_none(ids: Sequence[int], parts: Sequence[int | None], token: int | None) -> int:
    """Where the token before the texts is, or behind them; not one that a text writes out."""
    both = zip(ids, parts, strict=True)
    return next((i for i, (one, part) in enumerate(both) if part is None and one == token), 0)


def _of_context(pairs: Sequence[tuple[int, int]], parts: Sequence[int | None]) -> Offsets:
    inside = np.asarray([part == 1 for part in parts])
    return np.where(inside[:, None], np.asarray(pairs, np.int64), -1)


def token_span(answers: Sequence[Answer], offsets: Offsets) -> tuple[int, int] | None:
    """First and last token of the first answer; None if there is none or the window cuts it."""
    context = np.flatnonzero(offsets[:, 0] >= 0)
    if not answers or not len(context):
        return None
    begins, ends = offsets[context, 0], offsets[context, 1]
    start, stop = answers[0].start, answers[0].start + len(answers[0].text)
    if begins[0] > start or ends[-1] < stop:
        return None
    first = int(np.searchsorted(begins, start, side="right")) - 1
    last = int(np.searchsorted(ends, stop, side="left"))
    return int(context[first]), int(context[last])


@dataclass(frozen=True)
class Span:
    """A part of a context and its score."""

    score: float
    start: int
    stop: int


def best_span(
    starts: NDArray[np.float32],
    ends: NDArray[np.float32],
    offsets: Offsets,
    *,
    longest: int,
    candidates: int = 20,
) -> Span | None:
    """The likeliest span of a window.

    Args:
        starts: Score of each token as the first of the answer.
        ends: The same as the last.
        offsets: Of the tokens in the context.
        longest: Tokens of an answer at most.
        candidates: Of the best first and last tokens, how many are combined.

    Returns:
        None if no two of them make a span.
    """
    context = np.flatnonzero(offsets[:, 0] >= 0)
    first = context[np.argsort(-starts[context], kind="stable")[:candidates]]
    last = context[np.argsort(-ends[context], kind="stable")[:candidates]]
    tokens = last[None, :] - first[:, None] + 1
    together = starts[first][:, None] + ends[last][None, :]
    together = np.where((tokens >= 1) & (tokens <= longest), together, -np.inf)
    if not np.isfinite(together).any():
        return None
    i, j = np.unravel_index(int(together.argmax()), together.shape)
    return Span(float(together[i, j]), int(offsets[first[i], 0]), int(offsets[last[j], 1]))
