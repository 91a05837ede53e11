"""Questions, and the files they are in: SQuAD's own, or cells of a table."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sentei.data.formats import HALF
from sentei.messages import printable, short
from sentei.untrusted import parse_json


@dataclass(frozen=True)
class Answer:
    """A text, and where in its context it starts."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question on a context; without answers, if the context does not answer it."""

    question: str
    context: str
    answers: tuple[Answer, ...]


def read(path: Path, text: str) -> list[Question]:
    """The questions of a file in SQuAD's own format.

    Args:
        path: For errors.
        text: What it holds.

    Raises:
        ValueError: It is not in this format, or an answer is not in its context.
    """
    whole = parse_json(text, path)
    try:
        questions = list(_questions(path, whole["data"]))
    except (KeyError, TypeError, AttributeError) as error:
        missing = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{path}: not in SQuAD's format ({missing}): data, in it paragraphs, in them a context "
            f"and qas, in them id, question and answers with text and answer_start."
        ) from None
    if not questions:
        raise ValueError(f"{path} holds no question.")
    return questions


def _questions(path: Path, articles: Any) -> Iterator[Question]:
    for article in articles:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            for entry in paragraph["qas"]:
                answers = [] if entry.get("is_impossible") else entry["answers"]
                question = Question(
                    entry["question"],
                    context,
                    tuple(Answer(one["text"], one["answer_start"]) for one in answers),
                )
                if reason := fault(question):
                    name = printable(str(entry["id"])[:60])
                    raise ValueError(f"{path}, question {name}: {reason}")
                yield question


def fault(question: Question) -> str:
    """What is wrong with a question; empty where nothing is."""
    for what, text in (("question", question.question), ("context", question.context)):
        if not isinstance(text, str) or not text.strip():
            return f"the {what} is {short(text)}, not a text; take it out."
        if HALF.search(text):
            return f"the {what} holds half of a character, where it was cut: {short(text)}."
    for answer in question.answers:
        start, text = answer.start, answer.text
        if not isinstance(text, str) or not text.strip() or not isinstance(start, int):
            return f"the answer {short(text)} at {short(start)} is not a text and its place."
        there = question.context[start : start + len(text)] if start >= 0 else ""
        if there != text:
            place = question.context.find(text)
            fix = f"it begins at {place}" if place >= 0 else "it is not in the context at all"
            return (
                f"the answer {short(text)} is not in its context at {start}, where there is "
                f"{short(there)}: {fix}."
            )
    return ""


def from_cells(cell: object, fail: Callable[[str], NoReturn]) -> tuple[Answer, ...]:
    """The answers in a cell of a table: the hub's two lists, SQuAD's list of objects, or as text.

    Args:
        cell: What the table holds.
        fail: Raises with the place of the row.
    """
    if isinstance(cell, str):
        try:
            cell = _written(cell) if cell.strip() else []
        except Exception:  # of two parsers, on whatever a cell holds
            fail(f"the answers are {short(cell)}, which is neither JSON nor written by Python.")
    if isinstance(cell, Mapping):
        texts, starts = cell.get("text"), cell.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            fail(f"the answers are {short(cell)}: text and answer_start must be lists alike.")
        return tuple(Answer(text, start) for text, start in zip(texts, starts, strict=True))
    if isinstance(cell, list) and all(isinstance(one, Mapping) for one in cell):
        return tuple(Answer(one.get("text"), one.get("answer_start")) for one in cell)
    fail(
        f'the answers are {short(cell)}; write {{"text": ["..."], "answer_start": [0]}}, with '
        f"empty lists where there is none."
    )


def _written(cell: str) -> Any:
    """The value of a cell in JSON, or as Python and pandas write it."""
    try:
        return parse_json(cell, "the cell")
    except ValueError as error:
        if not cell.lstrip().startswith(("{'", "[{'")):
            raise error
    return ast.literal_eval(_WithoutArrays().visit(ast.parse(cell.strip(), mode="eval")))


class _WithoutArrays(ast.NodeTransformer):
    """``array(['1889'], dtype=object)``, as numpy writes a list, becomes the list."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        known = isinstance(node.func, ast.Name) and node.func.id == "array" and node.args
        return self.visit(node.args[0]) if known else node
