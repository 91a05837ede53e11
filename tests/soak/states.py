"""What a run has written, edited by hand: settings, checkpoints, pruner's state, reports, pages."""

from __future__ import annotations

import html.parser
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from sentei import manifest
from sentei.pruning import checkpoint

from .bad import CANARY, FILES, SPECIAL, TEXTS, VALUES, attempt, bomb, mutants
from .trial import Trial
from .world import World, copy

STATES = "run.yaml, checkpoints, pruner's state, report.json edited"
PAGES = "report.html of hostile facts"


def trials(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """Settings, the newest checkpoint's files and the report, each with other contents."""
    stopped = world.stopped(world.prune("platon"), 0.75)
    finished = world.reference(world.prune("platon"))
    resume = ["prune", "--out", "HERE/out", "--resume"]
    for name, what, content in _of_stopped(stopped, rng):
        if rng.random() < share:
            before = _copy(stopped)
            if rng.random() < 0.6:
                content = _told(content)
            yield attempt(
                STATES,
                f"{name}: {what}",
                resume,
                {f"out/{name}": content},
                before=before,
                seconds=60,
            )
    for what, content in _reports(finished, rng):
        for words in (["verify", "HERE/out"], ["report", "HERE/out"], resume):
            if rng.random() < share:
                yield attempt(
                    STATES,
                    f"{words[0]}, report.json: {what}",
                    words,
                    {"out/report.json": content},
                    before=_copy(finished),
                    seconds=60,
                )


def _copy(source: Path):
    return lambda place: copy(source, place / "out") and None


def _told(content):
    """A file of a checkpoint whose manifest tells of it as it is now, so that it is read."""

    def act(path: Path) -> None:
        path.write_bytes(content) if isinstance(content, bytes) else content(path)
        if (path.parent / manifest.MANIFEST).is_file() and path.name != manifest.MANIFEST:
            manifest.write(path.parent)

    return act


def _instead(content):
    def act(path: Path) -> None:
        path.unlink(missing_ok=True)
        content(path)

    return act


def _of_stopped(run: Path, rng: random.Random) -> Iterator[tuple[str, str, Any]]:
    newest = max(
        (path for path in run.glob("checkpoints/checkpoint-*") if (path / "config.json").is_file()),
        key=lambda path: int(path.name.rpartition("-")[2]),
    )
    place = str(newest.relative_to(run))
    settings = yaml.safe_load((run / "run.yaml").read_text())
    yield "run.yaml", "a bomb", bomb(9, "model").encode()
    for what, data in FILES.items():
        yield "run.yaml", what, data
    for what, make in SPECIAL.items():
        yield "run.yaml", what, _instead(make)
    for what, data in mutants((run / "run.yaml").read_text(), 40, rng):
        yield "run.yaml", what, data
    for _ in range(50):
        what, key = rng.choice(list(VALUES)), rng.choice(list(settings))
        changed = {**settings, key: VALUES[what]}
        if isinstance(settings[key], dict):
            inner = rng.choice(list(settings[key]))
            changed[key], key = {**settings[key], inner: VALUES[what]}, f"{key}.{inner}"
        yield "run.yaml", f"{key} is {what}", yaml.safe_dump(changed).encode()
    state = json.loads((newest / "trainer_state.json").read_text())
    for key in state:
        what = rng.choice(list(VALUES))
        changed = json.dumps({**state, key: VALUES[what]}).encode()
        yield f"{place}/trainer_state.json", f"{key} is {what}", changed
    for name in ("trainer_state.json", "config.json", "tokenizer.json", "pruner.safetensors"):
        for what in rng.sample(sorted(FILES), 6):
            yield f"{place}/{name}", what, FILES[what]
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        yield f"{place}/{name}", "a pickle that runs", CANARY
        for what in rng.sample(sorted(FILES), 3):
            yield f"{place}/{name}", what, FILES[what]
    for what, make in _pruner(newest / "pruner.safetensors", rng):
        yield f"{place}/pruner.safetensors", what, make
    for what, data in FILES.items():
        yield f"{place}/{manifest.MANIFEST}", what, data
    for what, files in {
        "a list": [],
        "numbers": {"config.json": 3},
        "other files": {"../../../etc/passwd": {"bytes": 1, "sha256": ""}},
        "odd sizes": {"config.json": {"bytes": "x", "sha256": None}},
        "a huge size": {"config.json": {"bytes": 10**400, "sha256": "x"}},
        "an odd name": {"\x1b[31m": {"bytes": 1, "sha256": "x"}},
    }.items():
        data = json.dumps({"files": files}).encode()
        yield f"{place}/{manifest.MANIFEST}", what, data
    for what in ("deep", "binary", "null", "list", "huge number", "escape"):
        yield "metrics.jsonl", what, FILES[what]
    for name in ("checkpoint-notes", "checkpoint-99-copy", "checkpoint-", "checkpoint-99", "x"):
        yield f"checkpoints/{name}/trainer_state.json", "beside", b"{}"


def _pruner(path: Path, rng: random.Random) -> Iterator[tuple[str, Any]]:
    """The pruner's state with other values and tensors, written as it was."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata()

    def write(changed: dict[str, Any], words: dict[str, str]):
        summed = rng.random() < 0.8
        if summed and "sentei" in words:  # as who edits it would, so that the values are read
            words = {**words, "checksum": checkpoint._checksum(words["sentei"], changed)}
        return lambda target: save_file(changed, target, words)

    key, held = "sentei", json.loads(metadata["sentei"])
    for inner in held:
        for what in rng.sample(sorted(VALUES), 3):
            words = json.dumps({**held, inner: VALUES[what]})
            yield f"{inner} is {what}", write(tensors, {**metadata, key: words})
    for what in ("[]", "{}", "null", "3", "[" * 5_000, "x"):
        yield f"all is {what[:9]}", write(tensors, {**metadata, key: what})
    for name in rng.sample(sorted(tensors), min(6, len(tensors))):
        tensor = tensors[name]
        yield f"{name} lost", write({k: v for k, v in tensors.items() if k != name}, metadata)
        yield f"{name} flat", write({**tensors, name: tensor.reshape(-1)[:3].clone()}, metadata)
        yield f"{name} int64", write({**tensors, name: tensor.long()}, metadata)
        yield (
            f"{name} other",
            write({**tensors, name: (tensor == 0).to(tensor.dtype)}, metadata),
        )
    yield "a tensor more", write({**tensors, "x": next(iter(tensors.values())).clone()}, metadata)
    yield "no metadata", write(tensors, {})


def _reports(run: Path, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    facts = json.loads((run / "report.json").read_text())
    for what in rng.sample(sorted(FILES), 12):
        yield what, FILES[what]
    for key in facts:
        what = rng.choice(list(VALUES))
        yield f"{key} is {what}", json.dumps({**facts, key: VALUES[what]}).encode()
    for key in facts["pruning"]:
        what = rng.choice(list(VALUES))
        changed = {**facts, "pruning": {**facts["pruning"], key: VALUES[what]}}
        yield f"pruning.{key} is {what}", json.dumps(changed).encode()
    no_sites = {**facts, "pruning": {**facts["pruning"], "sites": [], "prunable": 0, "pruned": 0}}
    yield "no sites", json.dumps(no_sites).encode()
    yield "a key twice", json.dumps(facts).replace("{", '{"title": "x", ', 1).encode()


def pages(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """Every text of a report by every hostile one: shown, never obeyed."""
    finished = world.reference(world.prune("platon"))
    facts = json.loads((finished / "report.json").read_text())
    hostile = {
        **TEXTS,
        "end of a script": "</script><script>alert(1)</script>",
        "end of a title": "</title><svg onload=alert(1)>",
        "a script's address": "javascript:alert(1)",
        "a template": "{{ 7 * 7 }}{% raw %}",
        "a comment": "--><script>alert(1)</script><!--",
    }
    for what, text in hostile.items():
        if rng.random() < share:
            changed = json.dumps(_everywhere(facts, text)).encode()
            yield attempt(
                PAGES,
                what,
                ["report", "HERE/out"],
                {"out/report.json": changed},
                before=_copy(finished),
                after=_page,
                seconds=60,
            )


def _everywhere(facts: dict[str, Any], text: str) -> dict[str, Any]:
    """The text in every place of a report that holds one."""
    return {
        **facts,
        **{key: text for key in ("title", "model", "task", "problem", "created", "sentei")},
        "labels": [text, "x"],
        "settings": {**facts["settings"], text: text, "method": text},
        "environment": {**facts["environment"], "command": text},
        "sparse": {**facts["sparse"]},
    }


class _Reader(html.parser.HTMLParser):
    """What in a page would act: scripts, handlers, addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.acts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "base", "form", "link"):
            self.acts.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or re.match(r"\s*(javascript|data:text|https?:)", value or ""):
                if tag != "svg" and not name.startswith("xmlns"):
                    self.acts.append(f"<{tag} {name}={value!r}>")


def _page(place: Path) -> list[str]:
    path = place / "out" / "report.html"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    reader = _Reader()
    reader.feed(text)
    found = [f"page acts: {act}" for act in reader.acts[:3]]
    if raw := re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text):
        found.append(f"raw: {raw[0]!r} in report.html")
    return found
