"""Bad words on the command line: recipes' values, options of every verb, odd names of files."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from .bad import INSPECT, TEXTS, attempt
from .trial import Trial
from .world import World, copy

SETS = "--set, --method, --pattern, --sparsity"
OPTIONS = "values of options, every verb"
PATHS = "paths and odd names"

NAMES = [
    *("[/x]", "[red]", "a b", "ü", "e\u0301", "a\u202eb", "\x1b[2J\x1b]0;x\x07", "\x9b", "a\nb"),
    *("a\tb", "a\rb", "%s", "{x}", "$HOME", "~", "~nobody", "*", "a?", "[a-z]", "x" * 250),
    *("-x", "--help", "a'b\"c", "`touch canary`", "a;touch canary", "a|b", "a&b", "\\x", ":smile:"),
    *("\udc80", "\u2028", "model", "checkpoint-1", ".hidden", "con.txt", "a.safetensors", "a.csv"),
    *("NaN", "0", "1e999", "demo", "self", "dense", "hf", "main"),
]
"""Of files and folders that can be."""

PLACES = [
    *("", " ", ".", "..", "/", "/dev/null", "/dev/full", "/dev/zero", "/proc/1/environ"),
    *("/proc/no/such/x", "x" * 300, "x/" * 2_000, "~/x", "~no-such-user/x"),
    *("file.txt", "file.txt/x", "loop", "loop/x", "nothing", "https://x.test/y", "hf://x/y"),
    *("s3://x/y", "org/name", "org/name@rev", "org/name/x/y", "a//b"),
]
"""Names that are in the way, or none."""


def sets(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """Every value of a recipe by every odd text, and the words that choose a recipe."""
    base = (*INSPECT, *world.task)
    paths = _paths()
    for path in [*paths, "", "=", ".", "score.", "..x", "x" * 5_000, "score[0]", "__class__"]:
        for what in rng.sample(sorted(TEXTS), 8):
            words = [*base, "--method", "platon", f"--set={path}={TEXTS[what]}"]
            if rng.random() < share:
                yield attempt(SETS, f"--set {path[:40]}={what}", words)
    for option in ("method", "pattern", "sparsity", "recipe", "freeze-masks", "set"):
        for what, text in TEXTS.items():
            if rng.random() < share:
                words = [*base, f"--{option}={text}"]
                yield attempt(SETS, f"--{option} {what}", words)


def _paths() -> list[str]:
    """Of values in recipes."""
    from sentei import methods, serialization

    def walk(value: object, path: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(inner, f"{path}.{key}" if path else str(key))
        else:
            yield path

    found = dict[str, None]()
    for name in ("platon", "auto", "leap", "l0", "mgpp"):
        found |= dict.fromkeys(walk(serialization.to_dict(methods.find(name).build()), ""))
    return list(found)


def options(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """Every option of every verb by odd texts."""
    for verb, names, base in _verbs(world):
        for name in names:
            for what in rng.sample(sorted(TEXTS), 10 if verb == "inspect" else 3):
                if rng.random() < share:
                    words = [verb, *base, f"{name}={TEXTS[what]}"]
                    out = [*words, "--json"] if rng.random() < 0.3 else words
                    yield attempt(OPTIONS, f"{verb} {name} {what}", out, allowed=("out", "a"))


def _verbs(world: World) -> Iterator[tuple[str, list[str], list[str]]]:
    """Verbs, their options, and arguments with which nothing else is wrong."""
    import typer

    from sentei.cli import app

    run = str(world.reference(world.prune("platon")))
    task = list(world.task)
    given = {
        "inspect": [*INSPECT[1:], *task],
        "evaluate": ["--model", f"{run}/model", *task[2:]],
        "verify": [run],
        "shrink": [run],
        "methods": ["show", "platon"],
        "report": [f"{world.folder}/none"],
        "bench": [run, "--rounds", "1", "--length", "8", "--engine", "torch", "--out", "HERE/out"],
        "augment": [*task[:4], "--out", "HERE/out/x.jsonl", "--copies", "1"],
        "compare": [*task, "--out", "HERE/out", "--only", "nothing", "--method", "magnitude"],
    }
    group = typer.main.get_command(app)
    for verb, base in given.items():
        command = group.commands[verb]  # type: ignore[attr-defined]
        names = [option.opts[0] for option in command.params if option.opts[0].startswith("--")]
        yield verb, [name for name in names if name not in ("--help", "--out", "--launch")], base


def paths(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """Odd names of files and folders that are there; and names that are in the way, or none."""
    run = world.reference(world.prune("platon"))
    for number, name in enumerate(NAMES):
        for what, words, files in _named(world, name):
            if rng.random() < share:
                yield attempt(
                    PATHS,
                    f"{what} {name[:40]!r}",
                    words,
                    before=_copies(files),
                    allowed=(f"new/{name}", f"in/{name}", "out"),
                    seconds=60,
                )
        if number % 2 and rng.random() < share:
            words = world.prune("magnitude").typed(Path("HERE", "new", name))
            yield attempt(
                PATHS,
                f"prune --out {name[:40]!r}",
                words,
                before=_copies({}),
                allowed=(f"new/{name}",),
                seconds=120,
            )
    train = ("--train", str(world.data["train"]))
    for name in PLACES:
        for verb, words in {
            "--model": [*INSPECT, f"--model={name}", *train],
            "--train": [*INSPECT, "--model", world.model, f"--train={name}"],
            "--eval": [*INSPECT, "--model", world.model, *train, f"--eval={name}"],
            "--recipe": [*INSPECT, *world.task, f"--recipe={name}"],
            "--teacher": [*INSPECT, *world.task, f"--teacher={name}"],
            "--out": [*INSPECT, *world.task, f"--out={name}"],
            "--resume": ["prune", f"--out={name}", "--resume"],
            "verify": ["verify", "--", name],
            "report": ["report", "--", name],
            "shrink": ["shrink", "--", name],
            "shrink --out": ["shrink", run, f"--out={name}"],
            "evaluate": ["evaluate", f"--model={name}", *train],
            "compare plan": ["compare", "--out", "HERE/out", "--only", "nothing", "--", name],
            "compare --report": ["compare", "--report", f"--out={name}"],
            "augment --out": ["augment", *world.task[:4], f"--out={name}"],
            "bench": ["bench", "--engine", "torch", "--", name],
        }.items():
            if rng.random() < share:
                out = name.replace("~/", "home/") if "--out" in verb else "out"
                more = {"before": _in_the_way, "allowed": ("out", out)}
                yield attempt(PATHS, f"{verb} {name[:40]!r}", words, **more)


def _named(world: World, name: str) -> Iterator[tuple[str, list[object], dict[str, Path]]]:
    """Commands whose input has a name, and what is copied there."""
    run = world.reference(world.prune("platon"))
    csv = f"in/{name}.csv"
    files = {f"in/{name}": world.model}
    train = ("--train", world.data["train"])
    yield "--model", [*INSPECT, f"--model=HERE/in/{name}", *train], files
    yield "relative --model", [*INSPECT, f"--model=in/{name}", *train], files
    data = {csv: world.data["eval"]}
    yield "--train", [*INSPECT, "--model", world.model, f"--train=HERE/{csv}"], data
    finished = {f"in/{name}": run}
    for verb in ("verify", "report"):
        yield verb, [verb, "--", f"HERE/in/{name}"], finished
    yield "evaluate", ["evaluate", f"--model=HERE/in/{name}"], finished
    yield "shrink", ["shrink", f"--out=HERE/new/{name}", "--", f"HERE/in/{name}"], finished


def _copies(files: dict[str, Path]):
    def act(place: Path) -> None:
        (place / "new").mkdir()
        for path, source in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            copy(source, place / path)

    return act


def _in_the_way(place: Path) -> None:
    (place / "file.txt").write_text("x")
    (place / "loop").symlink_to("loop")
    (place / "nothing").symlink_to("nowhere")
    shutil.rmtree(place / "out", ignore_errors=True)
