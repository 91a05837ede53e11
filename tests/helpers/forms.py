"""The same few examples for every kind of task that reads text, in every format it reads."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from helpers.tasks import SEED, task_of

ROWS: dict[str, list[dict[str, Any]]] = {
    "classification": [
        {"text": "the film was good", "label": "pos"},
        {"text": "a meal was bad", "label": "neg"},
        {"text": "the book was fine", "label": "pos"},
        {"text": "a film was poor", "label": "neg"},
    ],
    "tokens": [
        {"tokens": ["Ann", "Lee"], "tags": ["B-per", "I-per"]},
        {"tokens": ["in", "Rome"], "tags": ["O", "B-loc"]},
    ],
    "answers": [
        {
            "question": "what was good",
            "context": f"the {thing} was good",
            "answers": {"text": [thing], "answer_start": [4]},
        }
        for thing in ("film", "book", "meal")
    ],
    "language": [{"text": "the film was good"}, {"text": "a meal was bad"}],
    "masked-text": [{"text": "the film was good"}, {"text": "a meal was bad"}],
    "summaries": [
        {"text": "the film was good", "summary": "good"},
        {"text": "a meal was bad", "summary": "bad"},
    ],
}


def squad(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """SQuAD's own form."""
    paragraphs = [
        {
            "context": row["context"],
            "qas": [
                {
                    "id": f"q{number}",
                    "question": row["question"],
                    "answers": [
                        {"text": text, "answer_start": start}
                        for text, start in zip(*row["answers"].values(), strict=True)
                    ],
                }
            ],
        }
        for number, row in enumerate(rows)
    ]
    return {"data": [{"title": "t", "paragraphs": paragraphs}]}


def separated(rows: list[dict[str, Any]], delimiter: str) -> str:
    """Columns; what is no text in JSON."""
    file = io.StringIO(newline="")
    names = list(rows[0])
    writer = csv.writer(
        file,
        delimiter=delimiter,
        lineterminator="\n",
        quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE,
        quotechar='"' if delimiter == "," else None,
    )
    writer.writerow(names)
    for row in rows:
        cells = [row[name] for name in names]
        writer.writerow([one if isinstance(one, str) else json.dumps(one) for one in cells])
    return file.getvalue()


def written(kind: str, form: str, rows: list[dict[str, Any]] | None = None) -> str:
    """The examples as a file of that form holds them."""
    rows = ROWS[kind] if rows is None else rows
    match form:
        case "jsonl":
            return "".join(json.dumps(row) + "\n" for row in rows)
        case "json":
            return json.dumps(rows, indent=1) + "\n"
        case "squad.json":
            return json.dumps(squad(rows), indent=1) + "\n"
        case "csv":
            return separated(rows, ",")
        case "tsv":
            return separated(rows, "\t")
        case "conll":
            sentences = [zip(row["tokens"], row["tags"], strict=True) for row in rows]
            return "\n".join("".join(f"{w}\t{tag}\n" for w, tag in one) for one in sentences)
        case "txt":
            return "".join(f"{row['text']}\n" for row in rows)
    raise AssertionError(form)


FORMS = [
    *[("classification", form) for form in ("csv", "tsv", "jsonl", "json")],
    *[("tokens", form) for form in ("conll", "jsonl", "json")],
    *[("answers", form) for form in ("csv", "tsv", "jsonl", "json", "squad.json")],
    *[
        (kind, f)
        for kind in ("language", "masked-text")
        for f in ("txt", "csv", "tsv", "jsonl", "json")
    ],
    *[("summaries", form) for form in ("csv", "tsv", "jsonl", "json")],
]
"""Every kind with every form that it reads."""

NAMES = {"classification": ("neg", "pos"), "tokens": ("O", "B-loc", "I-loc", "B-per", "I-per")}


def load(kind: str, path: Any, use: str = "eval", **options: Any) -> Any:
    """The examples of a file, as those to train on or those to evaluate on."""
    task = task_of(kind=kind, **{use: path}, **options)
    if use == "train":
        return task.load_training()
    return task.load_evaluation(NAMES.get(kind, ()), SEED)
