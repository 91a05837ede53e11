"""A teacher's answers on disk: the same as fresh ones, asked for once, and safe to break off."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from sentei.distill import Distiller, TeacherCache
from sentei.distill.cache import expected_bytes
from sentei.parts.distillation import Distillation

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 60,
    "max_position_embeddings": 24,
}
EVERYTHING = Distillation(labels=1, logits=1, hidden=1, attention=1)
LENGTHS = [9, 7, 7, 4, 3, 9, 5, 2, 6, 8]


def bert(seed, kind=BertForSequenceClassification, **changes):
    torch.manual_seed(seed)
    return kind(BertConfig(**SIZES | changes))


def examples():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(5, 60, (n,), generator=generator) for n in LENGTHS]


def collate(rows, side="right", width=None):
    width = width or max(len(row) for row in rows)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), None
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, place], mask[i, place] = row, 1
    labels = torch.tensor([int(row[0]) % 2 for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class Counted:
    """How many examples a teacher was asked for."""

    def __init__(self, teacher):
        self.examples = 0
        teacher.register_forward_hook(self.count, with_kwargs=True)

    def count(self, module, args, kwargs, output):
        self.examples += len(kwargs["input_ids"])


def losses(student, teacher, asked, batches, cache=None):
    """Of batches, one after another, with the student's dropout drawn alike."""
    with Distiller(student, teacher, asked, cache=cache):
        torch.manual_seed(3)
        return [student.train()(**batch).loss.detach() for batch in batches]


@pytest.mark.parametrize("layers", [None, (2, 2, 3)], ids=["every layer", "one twice"])
def test_the_same_loss_with_and_without(tmp_path, layers):
    asked = EVERYTHING.model_copy(update={"layers": layers})
    rows = examples()
    batches = [collate(rows[:5]), collate(rows[5:])]
    student, teacher = bert(0), bert(1)
    plain = losses(student, teacher, asked, batches)
    counted = Counted(teacher)
    for _ in range(2):
        cache = TeacherCache(tmp_path)
        found = losses(student, teacher, asked, batches, cache)
        cache.close()
        assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
    assert counted.examples == len(rows)


@pytest.mark.parametrize(("side", "first", "later"), [("right", None, 11), ("left", 11, 11)])
def test_other_batches_of_the_same_examples(tmp_path, side, first, later):
    """Shuffled, and padded otherwise: the answers find their examples and their tokens.

    On the left the width stays: BERT counts positions from the edge and would read another text.
    """
    rows = examples()
    student, teacher = bert(0), bert(1)
    cache = TeacherCache(tmp_path)
    batches = [collate(part, side, first) for part in (rows[:5], rows[5:])]
    losses(student, teacher, EVERYTHING, batches, cache)
    cache.close()
    order = [rows[i] for i in (7, 2, 9, 0, 4, 3, 8, 1, 6, 5)]
    batches = [collate(order[k : k + 2], side, later) for k in range(0, 10, 2)]
    fresh = losses(student, teacher, EVERYTHING, batches)
    counted = Counted(teacher)
    found = losses(student, teacher, EVERYTHING, batches, TeacherCache(tmp_path))
    assert counted.examples == 0
    for a, b in zip(found, fresh, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_batch_of_old_and_new_keeps_what_was_said_first(tmp_path):
    """However full the cache was, so that a run resumed in the middle goes the same way."""
    rows = examples()
    student, teacher = bert(0), bert(1)
    asked = Distillation(labels=0, logits=1)
    mixed = [collate(rows[2:5])]
    cache = TeacherCache(tmp_path)
    losses(student, teacher, asked, [collate(rows[:3]), collate([rows[3]] * 2)], cache)
    assert len(cache) == 4
    half = losses(student, teacher, asked, mixed, cache)
    assert len(cache) == 5
    counted = Counted(teacher)
    assert torch.equal(losses(student, teacher, asked, mixed, cache)[0], half[0])
    assert counted.examples == 0


def test_classes_of_tokens_are_kept_by_token(tmp_path):
    rows = examples()
    batch = collate(rows[:4])
    batch["labels"] = batch["input_ids"] % 2
    student, teacher = bert(0, BertForTokenClassification), bert(1, BertForTokenClassification)
    asked = Distillation(labels=0, logits=1)
    plain = losses(student, teacher, asked, [batch])
    assert torch.equal(
        losses(student, teacher, asked, [batch], TeacherCache(tmp_path))[0], plain[0]
    )


def test_half_precision_rounds_and_halves(tmp_path):
    student, teacher = bert(0), bert(1)
    batches, sizes, found = [collate(examples())], [], []
    for dtype in ("float32", "float16"):
        for _ in range(2):
            cache = TeacherCache(tmp_path / dtype, dtype=dtype)
            found += losses(student, teacher, EVERYTHING, batches, cache)
            cache.close()
        sizes.append((tmp_path / dtype / "answers.bin").stat().st_size)
    assert sizes[0] == 2 * sizes[1]
    assert torch.equal(found[0], found[1]) and torch.equal(found[2], found[3])
    assert not torch.equal(found[0], found[2])
    torch.testing.assert_close(found[0], found[2], rtol=1e-2, atol=1e-3)


def test_the_size_is_known_before(tmp_path):
    rows = examples()
    cache = TeacherCache(tmp_path)
    losses(bert(0), bert(1), EVERYTHING, [collate(rows)], cache)
    cache.close()
    found = sum((tmp_path / name).stat().st_size for name in ("answers.bin", "index.bin"))
    assert found == expected_bytes(LENGTHS, labels=2, hidden=(4, 16), attention=(3, 2))


@pytest.mark.parametrize("torn", ["index.bin", "answers.bin"])
def test_an_unfinished_tail_is_written_again(tmp_path, torn):
    rows = examples()
    student, teacher = bert(0), bert(1)
    batches = [collate(rows)]
    cache = TeacherCache(tmp_path)
    plain = losses(student, teacher, EVERYTHING, batches, cache)
    cache.close()
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for cut in (1, 50, 400):
        for path, data in whole.items():
            path.write_bytes(data)
        (tmp_path / torn).write_bytes(whole[tmp_path / torn][:-cut])
        counted = Counted(teacher)
        cache = TeacherCache(tmp_path)
        found = losses(student, teacher, EVERYTHING, batches, cache)
        cache.close()
        assert counted.examples == len(rows) and torch.equal(found[0], plain[0])
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == whole


def test_damaged_answers_are_asked_for_again(tmp_path):
    rows = examples()
    student, teacher = bert(0), bert(1)
    cache = TeacherCache(tmp_path)
    plain = losses(student, teacher, Distillation(), [collate(rows)], cache)
    cache.close()
    file = tmp_path / "answers.bin"
    data = bytearray(file.read_bytes())
    data[5] ^= 255
    file.write_bytes(data)
    found = losses(student, teacher, Distillation(), [collate(rows)], TeacherCache(tmp_path))
    assert torch.equal(found[0], plain[0])


@pytest.mark.parametrize(
    ("teacher", "asked", "dtype", "message"),
    [
        (bert(2), EVERYTHING, "float32", "the answers of another teacher"),
        (bert(1), Distillation(logits=1), "float32", "holds other layers"),
        (bert(1), EVERYTHING, "float16", "holds float32 numbers"),
    ],
    ids=["teacher", "layers", "dtype"],
)
def test_what_does_not_belong_is_refused(tmp_path, teacher, asked, dtype, message):
    cache = TeacherCache(tmp_path)
    losses(bert(0), bert(1), EVERYTHING, [collate(examples())], cache)
    cache.close()
    with pytest.raises(ValueError, match=message):
        Distiller(bert(0), teacher, asked, cache=TeacherCache(tmp_path, dtype=dtype))


def test_precision_makes_other_answers(tmp_path):
    student, teacher = bert(0), bert(1)
    counted = Counted(teacher)
    cache = TeacherCache(tmp_path)
    with Distiller(student, teacher, Distillation(), cache=cache):
        student.train()(**collate(examples()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            student(**collate(examples()))
        student(**collate(examples()))
    assert counted.examples == 2 * len(LENGTHS)


def test_token_types_tell_examples_apart(tmp_path):
    student, teacher = bert(0), bert(1)
    batch = collate(examples())
    counted = Counted(teacher)
    with Distiller(student, teacher, Distillation(), cache=TeacherCache(tmp_path)):
        for kind in (0, 1, 0):
            types = torch.full_like(batch["input_ids"], kind)
            student.train()(**batch, token_type_ids=types)
    assert counted.examples == 2 * len(LENGTHS)


def test_what_cannot_be_kept_is_refused(tmp_path):
    padding = Distillation(hidden=1, padding=True)
    with pytest.raises(ValueError, match="padding=False, or no cache"):
        Distiller(bert(0), bert(1), padding, cache=TeacherCache(tmp_path / "a"))
    dropout = Distillation(teacher_dropout=True)
    with pytest.raises(ValueError, match="teacher_dropout"):
        Distiller(bert(0), bert(1), dropout, cache=TeacherCache(tmp_path / "b"))
    distiller = Distiller(bert(0), bert(1), cache=TeacherCache(tmp_path / "c"))
    with distiller, pytest.raises(ValueError, match="the batch holds position_ids"):
        distiller.student.train()(**collate(examples()), position_ids=torch.arange(9)[None])


def test_two_processes_do_not_share_a_folder(tmp_path):
    distiller = Distiller(bert(0), bert(1), cache=TeacherCache(tmp_path))
    code = (
        "import sys; from sentei.distill import TeacherCache; "
        "TeacherCache(sys.argv[1]).bind('x', {'hidden': [], 'attention': []})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "in use by another process" in done.stderr
    assert distiller.cache is not None
    distiller.cache.close()
    again = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert again.returncode == 0
