"""SubjQA (questions on reviews, CSV) as files that Sentei reads: SQuAD's format, v2.0.

    python -m benchmarks.subjqa FOLDER OUT

FOLDER holds a folder for each domain with train.csv, dev.csv and test.csv; OUT gets train.json,
dev.json and test.json over all of them. A review ends with ANSWERNOTFOUND, which rows without an
answer point at; it is taken off. Spans that reach beyond the review's own text are left out.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

csv.field_size_limit(1 << 24)

NOT_FOUND = "ANSWERNOTFOUND"
PARTS = ("train", "dev", "test")


def convert(folder: Path, part: str) -> dict[str, Any]:
    """One part of all domains below ``folder``."""
    files = sorted(folder.glob(f"*/{part}.csv"))
    if not files:
        raise ValueError(f"{folder} holds no */{part}.csv: give the folder of the domains")
    data = [{"title": file.parent.name, "paragraphs": list(_paragraphs(file))} for file in files]
    return {"version": "SubjQA", "data": data}


def _paragraphs(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as rows:
        for number, row in enumerate(csv.DictReader(rows)):
            context = row["review"].removesuffix(NOT_FOUND).rstrip()
            start, stop = ast.literal_eval(row["human_ans_indices"])
            text = context[start:stop]
            answered = bool(text.strip()) and stop <= len(context)
            question = {
                "id": f"{file.parent.name}-{file.stem}-{number}",
                "question": row["question"],
                "answers": [{"text": text, "answer_start": start}] if answered else [],
                "is_impossible": not answered,
            }
            yield {"context": context, "qas": [question]}


def main(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        data = convert(folder, part)
        questions = [p["qas"][0] for article in data["data"] for p in article["paragraphs"]]
        answered = sum(not question["is_impossible"] for question in questions)
        (out / f"{part}.json").write_text(json.dumps(data), encoding="utf-8")
        print(f"{out / part}.json: {len(questions):,} questions, {answered:,} with an answer")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    main(**vars(parser.parse_args()))
