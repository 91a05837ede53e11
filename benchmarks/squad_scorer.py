"""SQuAD's scores beside torchmetrics' (extra ``bench``), on XQuAD's English questions.

The predictions are made here, so that what they must score is known: the true answer; the same with
an article, capitals and a full stop; half of its words; another question's answer; nothing; and
words drawn from the context.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

from torchmetrics.functional.text import squad as theirs

from benchmarks import machine
from sentei.tasks.answers import scores as squad
from sentei.tasks.answers.files import Question, read

SEED = 0


def predictions(questions: list[Question]) -> dict[str, list[str]]:
    """What each way of answering says to every question."""
    drawn = random.Random(SEED)
    truths = [question.answers[0].text for question in questions]

    def span(question: Question) -> str:
        words = question.context.split()
        start = drawn.randrange(len(words))
        return " ".join(words[start : start + drawn.randint(1, 8)])

    ways: dict[str, Callable[[int], str]] = {
        "true answer": lambda i: truths[i],
        "the TRUE ANSWER.": lambda i: f"the {truths[i].upper()}.",
        "first half of its words": lambda i: " ".join(_half(truths[i].split())),
        "next question's answer": lambda i: truths[(i + 1) % len(truths)],
        "nothing": lambda i: "",
        "words of the context": lambda i: span(questions[i]),
    }
    return {name: [say(i) for i in range(len(questions))] for name, say in ways.items()}


def _half(words: list[str]) -> list[str]:
    return words[: (len(words) + 1) // 2]


def compare(questions: list[Question], answers: list[str]) -> tuple[float, float, float, float]:
    """Exact match and F1, ours and then theirs, in %."""
    truths = [[answer.text for answer in question.answers] for question in questions]
    ours = [
        100
        * sum(score(one, true) for one, true in zip(answers, truths, strict=True))
        / len(answers)
        for score in (squad.exact, squad.f1)
    ]
    scores = theirs(
        [{"id": str(i), "prediction_text": one} for i, one in enumerate(answers)],
        [
            {"id": str(i), "answers": {"text": true, "answer_start": [0] * len(true)}}
            for i, true in enumerate(truths)
        ],
    )
    return ours[0], ours[1], float(scores["exact_match"]), float(scores["f1"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark data")
    file = parser.parse_args().data / "xquad_en" / "xquad.en.json"
    questions = read(file, file.read_text(encoding="utf-8"))
    rows = ["| said | exact match | F1 | torchmetrics: exact match | F1 |", "|---|---|---|---|---|"]
    scores = {}
    for name, answers in predictions(questions).items():
        scores[name] = compare(questions, answers)
        rows.append(f"| {name} | " + " | ".join(f"{value:.4f}" for value in scores[name]) + " |")
    machine.write("squad_scorer", "\n".join(rows), {"questions": len(questions), "found": scores})


if __name__ == "__main__":
    main()
