"""Every reader of a file that others wrote: whatever is in it, it is read or ends in a sentence."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

import sentei
from helpers.plans import small
from sentei import manifest, serialization
from sentei import report as reports
from sentei.cli.console import Console
from sentei.compare import plan as plans
from sentei.compare import runs
from sentei.data import sources
from sentei.data.formats import Format
from sentei.distill.cache import FILE, TeacherCache
from sentei.models.card import mark_shrunk
from sentei.models.contents import check_contents, weight_files
from sentei.models.folder import read_manifest, transformer_folder
from sentei.models.loading import saved_labels
from sentei.models.pooling import read_pooling
from sentei.pack import encode
from sentei.pack.files import File
from sentei.pack.files import write as write_packed
from sentei.pruning import checkpoint
from sentei.records import PruningReport, RunReport, SizeRecord
from sentei.run.checkpoints import newest_complete, read_seconds
from sentei.run.options import settings_from
from sentei.run.result import why_unfinished
from sentei.run.settings import Settings
from sentei.run.vocabulary import read_texts
from sentei.tasks.classification import Classification

RECIPE = serialization.to_dict(sentei.platon(0.8))
SITE = {"name": "w", "layer": 0, "role": "query", "shape": (4, 4), "weights": 16, "pruned": 8}
UPDATE = {"step": 1, "target": 0.5, "pruned": 8, "flips": 0, "overlap": 1.0, "threshold": 0.1}
HISTOGRAM = {"edges": (0.0, 1.0, 2.0), "kept": (1, 7), "pruned": (4, 4)}
REPORT = RunReport(
    **dict.fromkeys(("sentei", "created", "title", "model", "model_type", "task", "problem"), "x"),
    metric="accuracy",
    labels=("a", "b"),
    train_examples=3,
    eval_examples=4,
    dense={"accuracy": 0.9},
    sparse={"accuracy": 0.8},
    pruning=PruningReport(
        method="platon",
        recipe=RECIPE,
        step=2,
        total_steps=2,
        target=0.5,
        prunable=16,
        pruned=8,
        parameters=20,
        zeros=8,
        sites=(SITE,),
        units=({"pattern": "head", "name": "w", "layer": 0, "units": 2, "pruned": 1},),
        updates=(UPDATE,),
        weight_histogram=HISTOGRAM,
        score_histogram={**HISTOGRAM, "log10": True},
    ),
    train=({"step": 1, "loss": 0.5, "learning_rate": 1e-4, "sparsity": 0.5},),
    evaluations=({"step": 1, "sparsity": 0.5, "metrics": {"accuracy": 0.8}},),
    sizes=dict.fromkeys(SizeRecord.model_fields, 100),
    settings={"seed": 1},
    environment={"torch": "2"},
    seconds={"train": 1.0},
)


def task(kind: str, **options) -> Callable[[Path], object]:
    return lambda path: settings_from({"model": "m", "kind": kind, **options}, {}).task.read(
        path, ("train",)
    )


def cache(path: Path) -> None:
    """Opens a teacher's answers and lets go of them."""
    answers = TeacherCache(path.parent)
    try:
        answers.bind("t", {"hidden": [0]})
    finally:
        answers.close()


def config(path: Path) -> None:
    """As whoever loads a model does."""
    check_contents(path.parent)
    saved_labels(str(path.parent))


def packed_weights(path: Path) -> None:
    """All tensors of a packed file, decoded."""
    file = File(path)
    for name in file.names:
        file.dense(name)


def card(folder: Path) -> None:
    """As whoever writes a model beside an old card does."""
    if (folder / "README.md").is_file():
        mark_shrunk(folder, "It was shrunk.")


def show(report: RunReport) -> None:
    """All that is made of a report, but pictures, which take a second."""
    with redirect_stdout(StringIO()):
        reports.print_console(report, Console())
    json.dumps(report.model_dump(mode="json"))
    assert 0 <= report.pruning.sparsity and 0 <= report.pruning.sparsity_all


def around(folder: Path) -> None:
    """What stands around a model in a folder of sentence-transformers, its other files sound."""
    for name, text in (("modules.json", MODULES), ("1_Pooling/config.json", "{}")):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        if not (file.exists() or file.is_symlink()):
            file.write_text(text)
    read_pooling(folder).ready("a text", ("query",))


MODULES = '[{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]'

READERS = {
    "recipe": ("recipe.yaml", serialization.load),
    "settings": ("run.yaml", Settings.read),
    "plan": ("plan.yaml", plans.load),
    "report": ("report.json", lambda path: show(reports.read(path.parent))),
    "speed": ("bench.json", lambda path: reports.read_speed(path.parent)),
    "manifest": ("manifest.json", lambda path: manifest.problems(path.parent)),
    "values of a trial": ("values.json", runs._read),
    "state of a pruner": ("pruner.safetensors", checkpoint.read),
    "answers of a teacher": (FILE, cache),
    "seconds of a run": ("seconds", read_seconds),
    "checkpoint": (
        "checkpoint-5/manifest.json",
        lambda path: newest_complete(path.parents[1], lambda words: None),
    ),
    "finished run": ("manifest.json", lambda path: why_unfinished(path.parent)),
    "pooling": ("modules.json", lambda path: read_pooling(path.parent)),
    "how tokens are pooled": ("1_Pooling/config.json", lambda path: around(path.parents[1])),
    "prompts": ("config_sentence_transformers.json", lambda path: around(path.parent)),
    "limit of tokens": ("sentence_bert_config.json", lambda path: around(path.parent)),
    "packed weights": ("model.safetensors", packed_weights),
    "config of a model": ("config.json", config),
    "index of weights": (SAFE_WEIGHTS_INDEX_NAME, lambda path: weight_files(path.parent)),
    "manifest of a shrunk model": ("shrink.json", lambda path: read_manifest(path.parent)),
    "card of a model": ("README.md", lambda path: card(path.parent)),
    "modules": ("modules.json", lambda path: transformer_folder(path.parent)),
    "csv": ("data.csv", task("classification")),
    "tsv": ("data.tsv", task("classification", quoting="none")),
    "jsonl": ("data.jsonl", task("classification")),
    "json": ("data.json", task("classification")),
    "parquet": ("data.parquet", task("classification")),
    "arrow": ("data.arrow", task("classification")),
    "tagged words": ("data.conll", task("tokens")),
    "tagged rows": ("data.jsonl", task("tokens")),
    "questions": ("data.json", task("answers")),
    "plain text": ("data.txt", task("language")),
    "pictures of a table": ("data.parquet", task("images")),
    "pictures of a folder": ("cats/a.png", lambda path: task("images")(path.parents[1])),
    "summaries": ("data.jsonl", task("summaries")),
    "rows to embed": ("data.jsonl", task("embeddings")),
    "texts of a vocabulary": ("data.txt", lambda path: read_texts(path, Classification())),
    "saved dataset": ("state.json", lambda path: sources.read(path.parent, Format(), ("train",))),
}
"""A name, and how it is read by whoever names the file, or the folder it is in."""

SOUND = {
    "seconds of a run": "12.5\n",
    "config of a model": '{"model_type": "bert", "id2label": {"0": "a", "1": "b"}}',
    "card of a model": "---\nlicense: mit\ntags: [a, b]\n---\n\n# A model\n",
    "modules": '[{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1"}]',
    "recipe": serialization.dump(sentei.platon(0.8)),
    "plan": json.dumps(small()),
    "values of a trial": '{"values": {"clip": 1}}',
    "pooling": '[{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1"}]',
    "how tokens are pooled": '{"pooling_mode": "mean"}',
    "prompts": '{"prompts": {"query": "q: "}, "default_prompt_name": "query"}',
    "limit of tokens": '{"max_seq_length": 9, "do_lower_case": true}',
    "rows to embed": '{"query": "who", "positive": "me"}\n{"query": "what", "positive": "it"}\n',
    "csv": "text,label\ngood,a\nbad,b\n",
    "tsv": "text\tlabel\ngood\ta\nbad\tb\n",
    "jsonl": '{"text": "good", "label": "a"}\n{"text": "bad", "label": "b"}\n',
    "json": '[{"text": "good", "label": "a"}, {"text": "bad", "label": "b"}]',
    "tagged words": "good B-x\nbad O\n\nfine O\n",
    "plain text": "a text\nand more\n",
    "texts of a vocabulary": "a text\nand more\n",
}
"""What is right for a reader; others are harmed out of nothing."""

DEEP = 100_000
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{one}: &{one} [{','.join(['*' + before] * 10)}]\n"
    for before, one in zip("abcdefghi", "bcdefghij", strict=True)
)
TEXTS = {
    "empty": "",
    "blank": " \n\n\t\n",
    "null": "null",
    "number": "3",
    "endless number": "9" * 5000,
    "number in hex": "0x" + "f" * 5000,
    "text": '"x"',
    "list": "[]",
    "lists": "[[], [1], [null]]",
    "mapping": "{}",
    "other mapping": '{"a": {"b": [1, NaN, 1e999]}, "files": 3, "values": [], "sentei": {}}',
    "keys twice": '{"a": 1, "a": 2}',
    "lists of mappings": '[{"path": 3, "type": null}, 3]',
    "deep lists": "[" * DEEP,
    "deep closed lists": "[" * DEEP + "]" * DEEP,
    "deep mappings": '{"a":' * DEEP + "1" + "}" * DEEP,
    "deep blocks": "".join(" " * depth + "a:\n" for depth in range(300)),
    "bomb": BOMB + "method: *i\nmodel: *i\ntasks: *i\nrecipes: *i\n",
    "tag": "!!python/object/apply:os.system ['touch executed']",
    "long line": "x" * 300_000,
    "long key": '{"' + "k" * 300_000 + '": 1}',
    "escapes": '{"\x1b[31m": "\\ud800 \\u0000 \x1b]0;x\x07"}',
    "commas": "," * 5000 + "\n" + "," * 4999,
    "quote": 'text,label\n"never closed,a\nbad,b\n',
    "line ends": "a\rb\r\nc\u2028d\x85e\x0bf\x0cg",
    "anchors": "&a [*a]",
    "merge": "<<: [1]",
    "timestamps": "method: 2001-12-14t21:59:43.10-05:00\nmodel: 0000-00-00",
    "keys of lists": "? [1, 2]\n: 3",
    "documents": "a: 1\n---\nb: 2",
    "head of a card": "---\ntags: 3\nlicense: [mit]\nlanguage: {a: b}\n---\n# A model\n",
    "deep card": f"---\ntags: {'[' * 3000}\n---\n# A model\n",
}
BYTES = {
    "nulls": bytes(4096),
    "noise": random.Random(0).randbytes(4096),
    "latin 1": "größe,ß\nä,ö\n".encode("latin-1"),
    "utf 16": "text,label\na,b\n".encode("utf-16"),
    "mark alone": b"\xef\xbb\xbf",
    "bad utf 8": b"text,label\n\xff\xfe,a\n",
    "gzip": b"\x1f\x8b\x08\x00" + bytes(20),
    "zip": b"PK\x03\x04" + bytes(40),
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(60),
    "parquet": b"PAR1" + bytes(60) + b"PAR1",
    "sqlite": b"SQLite format 3\x00" + bytes(1000),
    "safetensors": (2**63).to_bytes(8, "little") + b"{}",
    "header": (50).to_bytes(8, "little")
    + b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}',
}


def _files() -> dict[str, Callable[[Path, bytes], None]]:
    """How to put each harm in the place of a file, given what is right for it."""
    makes: dict[str, Callable[[Path, bytes], None]] = {
        "missing": lambda path, sound: None,
        "folder": lambda path, sound: path.mkdir(),
        "pipe": lambda path, sound: os.mkfifo(path),
        "device": lambda path, sound: path.symlink_to("/dev/zero"),
        "loop": lambda path, sound: path.symlink_to(path.name),
        "dangling": lambda path, sound: path.symlink_to("nowhere"),
        "half": lambda path, sound: path.write_bytes(sound[: len(sound) // 2]),
        "all but one byte": lambda path, sound: path.write_bytes(sound[:-1]),
        "with a mark": lambda path, sound: path.write_bytes(b"\xef\xbb\xbf" + sound),
        "with a null": lambda path, sound: path.write_bytes(sound[:9] + b"\0" + sound[9:]),
        "twice": lambda path, sound: path.write_bytes(sound * 2),
    }
    for seed in range(3):
        makes[f"flipped {seed}"] = lambda path, sound, seed=seed: path.write_bytes(
            _flipped(sound, seed)
        )
    for name, text in TEXTS.items():
        makes[name] = lambda path, sound, text=text: path.write_bytes(text.encode())
    for name, content in BYTES.items():
        makes[f"bytes: {name}"] = lambda path, sound, content=content: path.write_bytes(content)
    return makes


def _flipped(sound: bytes, seed: int) -> bytes:
    rng, harmed = random.Random(seed), bytearray(sound)
    for _ in range(8):
        harmed[rng.randrange(len(harmed))] ^= 1 << rng.randrange(8)
    return bytes(harmed)


HARMS = _files()


@contextmanager
def within(seconds: int):
    """Ends what does not end: a bomb, or a pipe that nobody writes to."""

    def stop(number, frame):
        raise TimeoutError(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def sound(tmp_path_factory, tiny_model) -> dict[str, bytes]:
    """What is right for every reader, where it is more than a text."""
    folder = tmp_path_factory.mktemp("sound")
    settings_from({"model": "m", "task": "sst2"}, RECIPE).write(folder / "run.yaml")
    texts = {name: text.encode() for name, text in SOUND.items()}
    texts["settings"] = (folder / "run.yaml").read_bytes()
    checkpoint.write({"recipe": {}, "step": 3}, folder / "pruner.safetensors")
    texts["state of a pruner"] = (folder / "pruner.safetensors").read_bytes()
    weights = torch.eye(40), torch.ones(3)
    packed = encode("w", weights[0].numpy(), compress=False)
    write_packed(folder / "packed.safetensors", {"w": packed, "b": weights[1]})
    texts["packed weights"] = (folder / "packed.safetensors").read_bytes()
    (folder / "whole").mkdir()
    (folder / "whole" / "one").write_text("1")
    manifest.write(folder / "whole")
    texts["manifest"] = (folder / "whole" / manifest.MANIFEST).read_bytes()
    return texts


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore")
def test_it_is_read_or_refused_in_a_sentence(reader, sound, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, read = READERS[reader]
    faults = []
    for number, (harm, put) in enumerate(HARMS.items()):
        path = tmp_path / str(number) / name
        path.parent.mkdir(parents=True)
        put(path, sound.get(reader, b"x" * 50))
        try:
            with within(20):
                read(path)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            sentence = str(error)
            if isinstance(error, TimeoutError | UnicodeError) or not sentence.strip():
                faults.append(f"{harm}: {type(error).__name__}: {sentence[:200]}")
            elif len(sentence) >= 2000:
                faults.append(f"{harm}: a message of {len(sentence):,} characters")
        except Exception as error:
            faults.append(f"{harm}: {type(error).__name__}: {str(error)[:200]}")
    assert not faults, "\n".join(faults)
    assert not list(tmp_path.rglob("executed"))


ODD = [
    *(None, True, -1, 0, 2.5, 10**16, 10**400, 1e308, float("nan"), float("inf")),
    *("", "nan", "1e400", "9" * 5000, "x" * 100_000, "[/x]\x1b", "\ud800", "a\0b", "2:4", "1e9x2"),
    *([], {}, [[]], [None], [10**30], {"a": 10**30}, {"kind": None}, {"kind": {}}, [{}] * 50),
]
"""Values that stand nowhere; each is tried in the place of every value of a sound file."""


def _places(value: object, path: tuple = ()):
    """The places of all values in plain data, of long lists those of the first two items."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*path, key))
    elif isinstance(value, list):
        for key in range(min(len(value), 2)):
            yield from _places(value[key], (*path, key))


def _with(data: object, place: tuple, value: object) -> object:
    if not place:
        return value
    first, *rest = place
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[first] = _with(copy[first], tuple(rest), value)
    return copy


@pytest.mark.parametrize("reader", ["recipe", "settings", "plan", "report", "values of a trial"])
def test_any_value_in_any_place_is_read_or_refused(reader, sound, tmp_path):
    name, read = READERS[reader]
    path = tmp_path / name
    if reader == "report":
        data = json.loads(REPORT.model_dump_json())
    else:
        data = yaml.safe_load(sound[reader])
    cases = [(place, value) for place in _places(data) for value in ODD]
    faults = []
    for place, value in random.Random(0).sample(cases, min(400, len(cases))):
        path.write_text(json.dumps(_with(data, place, value)))  # which is YAML too
        try:
            with within(20):
                read(path)
        except ValueError as error:
            if len(str(error)) >= 2000 or isinstance(error, UnicodeError):
                faults.append(f"{place}={str(value)[:20]}: {str(error)[:200]}")
        except Exception as error:
            faults.append(f"{place}={str(value)[:20]}: {type(error).__name__}: {error}"[:300])
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("reader", SOUND)
def test_what_is_right_is_read(reader, sound, tmp_path):
    """So that the harm, and not the place, is what others are refused for."""
    if reader == "pooling":  # of two files
        pytest.skip("its other file is read in the tests of texts")
    name, read = READERS[reader]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(sound[reader])
    read(tmp_path / name)
