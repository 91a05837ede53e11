"""A teacher's outputs on disk: the same as fresh ones, asked for once, and safe to break off."""

from __future__ import annotations

import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from sentei.distill import Distiller, TeacherCache
from sentei.distill.cache import FILE, ROW_BYTES, expected_bytes
from sentei.distill.outputs import Outputs
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


def losses(student, teacher, distillation, batches, cache=None):
    """Of batches, one after another, with the student's dropout drawn alike."""
    with Distiller(student, teacher, distillation, cache=cache):
        torch.manual_seed(3)
        return [student.train()(**batch).loss.detach() for batch in batches]


def rows_of(folder):
    """What a folder holds, by key."""
    with closing(sqlite3.connect(folder / FILE)) as database:
        return {key: columns for key, *columns in database.execute("SELECT * FROM outputs")}


def numbers_in(folder):
    """Bytes of all numbers that a folder holds."""
    columns = [column for _, *columns in rows_of(folder).values() for column in columns]
    return sum(len(column) for column in columns if column is not None)


def size_of(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("layers", [None, (2, 2, 3)], ids=["every layer", "one twice"])
def test_the_same_loss_with_and_without(tmp_path, layers):
    distillation = EVERYTHING.model_copy(update={"layers": layers})
    rows = examples()
    batches = [collate(rows[:5]), collate(rows[5:])]
    student, teacher = bert(0), bert(1)
    plain = losses(student, teacher, distillation, batches)
    counted = Counted(teacher)
    for _ in range(2):
        cache = TeacherCache(tmp_path)
        cached = losses(student, teacher, distillation, batches, cache)
        cache.close()
        assert all(torch.equal(a, b) for a, b in zip(cached, plain, strict=True))
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
    cached = losses(student, teacher, EVERYTHING, batches, TeacherCache(tmp_path))
    assert counted.examples == 0
    for a, b in zip(cached, fresh, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_batch_of_old_and_new_keeps_what_was_computed_first(tmp_path):
    """However full the cache was, so that a run resumed in the middle goes the same way."""
    rows = examples()
    student, teacher = bert(0), bert(1)
    distillation = Distillation(labels=0, logits=1)
    mixed = [collate(rows[2:5])]
    cache = TeacherCache(tmp_path)
    losses(student, teacher, distillation, [collate(rows[:3]), collate([rows[3]] * 2)], cache)
    assert len(cache) == 4
    half = losses(student, teacher, distillation, mixed, cache)
    assert len(cache) == 5
    counted = Counted(teacher)
    assert torch.equal(losses(student, teacher, distillation, mixed, cache)[0], half[0])
    assert counted.examples == 0


def test_classes_of_tokens_are_kept_by_token(tmp_path):
    rows = examples()
    batch = collate(rows[:4])
    batch["labels"] = batch["input_ids"] % 2
    student, teacher = bert(0, BertForTokenClassification), bert(1, BertForTokenClassification)
    distillation = Distillation(labels=0, logits=1)
    plain = losses(student, teacher, distillation, [batch])
    cached = losses(student, teacher, distillation, [batch], TeacherCache(tmp_path))
    assert torch.equal(cached[0], plain[0])


def test_half_precision_rounds_and_halves(tmp_path):
    student, teacher = bert(0), bert(1)
    batches, sizes, cached = [collate(examples())], [], []
    for dtype in ("float32", "float16"):
        for _ in range(2):
            cache = TeacherCache(tmp_path / dtype, dtype=dtype)
            cached += losses(student, teacher, EVERYTHING, batches, cache)
            cache.close()
        sizes.append(numbers_in(tmp_path / dtype))
    assert sizes[0] == 2 * sizes[1]
    assert torch.equal(cached[0], cached[1]) and torch.equal(cached[2], cached[3])
    assert not torch.equal(cached[0], cached[2])
    torch.testing.assert_close(cached[0], cached[2], rtol=1e-2, atol=1e-3)


def test_the_size_is_known_before(tmp_path):
    cache = TeacherCache(tmp_path)
    losses(bert(0), bert(1), EVERYTHING, [collate(examples())], cache)
    cache.close()
    expected = expected_bytes(LENGTHS, labels=2, hidden=(4, 16), attention=(3, 2))
    assert numbers_in(tmp_path) + ROW_BYTES * len(LENGTHS) == expected


@pytest.mark.parametrize(("classes", "states"), [(5, 0), (2, 7)], ids=["logits", "hidden"])
def test_the_size_on_disk_is_known_before(tmp_path, classes, states):
    """Within a tenth, or a few pages: a database leaves a little of them free."""
    generator = torch.Generator().manual_seed(0)
    cache = TeacherCache(tmp_path)
    cache.bind("a teacher", {"hidden": list(range(states)), "attention": []})
    lengths = torch.randint(4, 20, (2000 if not states else 300,), generator=generator).tolist()
    for n in lengths:
        ids = torch.randint(5, 30_000, (1, n), generator=generator)
        hidden = [torch.randn(1, n, 64, generator=generator) for _ in range(states)]
        outputs = Outputs(torch.randn(1, classes, generator=generator), hidden)
        cache.outputs({"input_ids": ids}, "", torch.device("cpu"), lambda kept=outputs: kept)
    assert len(cache) == len(lengths)
    cache.close()
    expected = expected_bytes(lengths, labels=classes, hidden=(states, 64 if states else 0))
    assert size_of(tmp_path) == pytest.approx(expected, rel=0.1, abs=100_000)


# --------------------------------------------------------------------------- broken off, damaged


@pytest.mark.parametrize("cut", [1, 50, 400, 20_000])
def test_an_unfinished_tail_is_written_again(tmp_path, cut):
    """What a machine that stops leaves of the last batch, whose transaction is not whole."""
    rows = examples()
    student, teacher = bert(0), bert(1)
    batches = [collate(rows[:5]), collate(rows[5:])]
    running, stopped = tmp_path / "running", tmp_path / "stopped"
    cache = TeacherCache(running)
    with Distiller(student, teacher, EVERYTHING, cache=cache) as distiller:
        torch.manual_seed(3)
        plain = [distiller.student.train()(**batch).loss.detach() for batch in batches]
        shutil.copytree(running, stopped)
    journal = stopped / f"{FILE}-wal"
    journal.write_bytes(journal.read_bytes()[:-cut])
    counted = Counted(teacher)
    again = losses(student, teacher, EVERYTHING, batches, TeacherCache(stopped))
    assert counted.examples == 5
    assert all(torch.equal(a, b) for a, b in zip(again, plain, strict=True))
    assert rows_of(stopped) == rows_of(running)


ADDING = """
import sys, torch
from sentei.distill import TeacherCache
from sentei.distill.outputs import Outputs
cache = TeacherCache(sys.argv[1])
cache.bind("a teacher", {"hidden": [], "attention": []})
print("open", flush=True)
sys.stdin.readline()
for i in range(int(sys.argv[2])):
    ids = torch.tensor([[i, 1], [i, 2]])
    logits = torch.full((2, 3), float(sys.argv[3]))
    cache.outputs({"input_ids": ids}, "", torch.device("cpu"), lambda: Outputs(logits))
cache.close()
"""


@contextmanager
def adding(folder, count, value):
    """Another process that has the folder open, and adds rows once it is told to go on."""
    process = subprocess.Popen(
        [sys.executable, "-c", ADDING, str(folder), str(count), str(value)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "open\n"
        yield process
        process.stdin.close()


def logits_of(cache, count):
    """Of the rows that the other process adds; 0 where they are missing."""
    logits = []
    for i in range(count):
        ids, missing = torch.tensor([[i, 1], [i, 2]]), Outputs(torch.zeros(2, 3))
        batch = cache.outputs(
            {"input_ids": ids}, "", torch.device("cpu"), lambda kept=missing: kept
        )
        logits += batch.logits[:, 0].tolist()
    return logits


def test_a_process_that_is_killed_leaves_whole_batches(tmp_path):
    with adding(tmp_path, 10**9, 1) as process:
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(0.5)
        process.kill()
    cache = TeacherCache(tmp_path)
    count = len(cache)
    assert count and count % 2 == 0
    cache.bind("a teacher", {"hidden": [], "attention": []})
    assert logits_of(cache, count // 2 + 1) == [1.0] * count + [0.0] * 2
    cache.close()


def test_damaged_answers_are_asked_for_again(tmp_path):
    rows = examples()
    student, teacher = bert(0), bert(1)
    cache = TeacherCache(tmp_path)
    plain = losses(student, teacher, Distillation(), [collate(rows)], cache)
    cache.close()
    whole = rows_of(tmp_path)
    file = tmp_path / FILE
    data = bytearray(file.read_bytes())
    _, logits, *_ = next(iter(whole.values()))
    data[data.index(logits) + 5] ^= 255
    file.write_bytes(data)
    counted = Counted(teacher)
    again = losses(student, teacher, Distillation(), [collate(rows)], TeacherCache(tmp_path))
    assert torch.equal(again[0], plain[0])
    assert counted.examples == len(rows) and rows_of(tmp_path) == whole


@pytest.mark.parametrize(
    "change",
    ["logits = 'text'", "logits = x'00', crc = 3523407757", "crc = NULL, logits = 1.5"],
    ids=["of another type", "of another size", "a number"],
)
def test_answers_that_another_program_changed_are_asked_for_again(tmp_path, change):
    rows = examples()
    student, teacher = bert(0), bert(1)
    cache = TeacherCache(tmp_path)
    plain = losses(student, teacher, Distillation(), [collate(rows)], cache)
    cache.close()
    whole = rows_of(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE)) as database, database:
        database.execute("CREATE TABLE loose AS SELECT * FROM outputs")
        database.execute("DROP TABLE outputs")
        database.execute("ALTER TABLE loose RENAME TO outputs")
        database.execute("CREATE UNIQUE INDEX keys ON outputs (key)")
        database.execute(f"UPDATE outputs SET {change}")
    again = losses(student, teacher, Distillation(), [collate(rows)], TeacherCache(tmp_path))
    assert torch.equal(again[0], plain[0]) and rows_of(tmp_path) == whole


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"no database" * 2000, lambda data: data[: len(data) // 2]],
    ids=["another file", "cut off"],
)
def test_a_damaged_file_is_named(tmp_path, damage):
    student, teacher = bert(0), bert(1)
    cache = TeacherCache(tmp_path)
    losses(student, teacher, EVERYTHING, [collate(examples())], cache)
    cache.close()
    file = tmp_path / FILE
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"is damaged \(.*\); name another folder, or remove"):
        losses(student, teacher, EVERYTHING, [collate(examples())], TeacherCache(tmp_path))


def test_a_full_disk_is_an_error_of_the_disk(tmp_path):
    """A limit on file size makes the operating system refuse a write, as a full disk does."""
    student, teacher = bert(0), bert(1)
    batches = [collate(examples()[:5]), collate(examples()[5:])]
    cache = TeacherCache(tmp_path)
    losses(student, teacher, EVERYTHING, batches[:1], cache)
    cache.close()
    whole = rows_of(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(OSError, match=FILE):
            losses(student, teacher, EVERYTHING, batches, TeacherCache(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert rows_of(tmp_path) == whole
    losses(student, teacher, EVERYTHING, batches, TeacherCache(tmp_path))
    assert len(TeacherCache(tmp_path)) == len(LENGTHS)


@pytest.mark.parametrize(
    ("teacher", "distillation", "dtype", "message"),
    [
        (bert(2), EVERYTHING, "float32", "the answers of another teacher"),
        (bert(1), Distillation(logits=1), "float32", "holds other layers"),
        (bert(1), EVERYTHING, "float16", "holds float32 numbers"),
        (
            bert(1),
            EVERYTHING.model_copy(update={"attention_of": "probabilities"}),
            "float32",
            "holds attention scores",
        ),
    ],
    ids=["teacher", "layers", "dtype", "attention"],
)
def test_what_does_not_belong_is_refused(tmp_path, teacher, distillation, dtype, message):
    cache = TeacherCache(tmp_path)
    losses(bert(0), bert(1), EVERYTHING, [collate(examples())], cache)
    cache.close()
    with pytest.raises(ValueError, match=message):
        Distiller(bert(0), teacher, distillation, cache=TeacherCache(tmp_path, dtype=dtype))


def test_a_folder_of_an_older_version_is_refused(tmp_path):
    (tmp_path / "cache.json").write_text('{"format": 1}', encoding="utf-8")
    with pytest.raises(ValueError, match="another version of Sentei; name another folder"):
        Distiller(bert(0), bert(1), cache=TeacherCache(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["cache.json"]


def test_a_folder_that_holds_nothing_belongs_to_nobody(tmp_path):
    for seed in (1, 2):
        Distiller(bert(0), bert(seed), cache=TeacherCache(tmp_path))
    assert len(TeacherCache(tmp_path)) == 0


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


def test_two_processes_share_a_folder(tmp_path):
    """What one adds the other reads at once, and what was there first stays."""
    cache = TeacherCache(tmp_path)
    cache.bind("a teacher", {"hidden": [], "attention": []})
    with adding(tmp_path, 4, 1) as process:
        assert logits_of(cache, 2) == [0.0] * 4
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait() == 0
        assert logits_of(cache, 5) == [0.0] * 4 + [1.0] * 4 + [0.0] * 2
    assert len(cache) == 10
    cache.close()


def test_processes_that_add_at_once_agree(tmp_path):
    values = (1, 2)
    with ExitStack() as stack:
        processes = [stack.enter_context(adding(tmp_path, 200, value)) for value in values]
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.wait() for process in processes] == [0, 0]
    cache = TeacherCache(tmp_path)
    cache.bind("a teacher", {"hidden": [], "attention": []})
    logits = logits_of(cache, 200)
    assert len(cache) == 400 and set(logits) <= set(values)
    assert logits[::2] == logits[1::2]  # one batch, one process
    cache.close()
