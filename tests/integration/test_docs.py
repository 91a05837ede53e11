"""What the documentation says can be typed, followed and run.

A python block under the line ``<!-- runnable -->`` is executed, and so is every python block of
docs/guides/extend.md; the blocks of one page share their names, and find those of ``names``. Other
python blocks must compile.
"""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
import yaml
from accelerate.state import AcceleratorState, GradientState
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, TrainingArguments

import sentei
from sentei import methods
from sentei.cli import app
from sentei.cli.options import make_settings
from sentei.models.folder import Manifest
from sentei.run.options import places
from sentei.run.recipes import make_recipe

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
CARDS = [card for card in sorted((ROOT / "docs" / "methods").glob("*.md")) if card.stem != "index"]
WIDTH = 100

FENCE = re.compile(
    r"^(?P<mark><!-- runnable -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
BY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
BY_CARD = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)


def blocks(page: Path, language: str) -> Iterator[tuple[str, bool]]:
    """The fenced blocks of a language, and whether each is to be run."""
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        if block["language"] == language:
            yield block["text"], bool(block["mark"]) or page.name == "extend.md"


def commands(page: Path) -> Iterator[tuple[str, bool]]:
    """Every ``sentei`` command line, and whether it stands alone and so must be complete."""
    for text, _ in blocks(page, ""):
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("sentei "):
                yield line, True
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    for span in re.finditer(r"`(sentei [^`]+)`", outside):
        yield span[1].replace("\n", " "), False


def test_the_pages_hold_what_these_tests_look_for():
    assert sum(1 for page in PAGES for _ in commands(page)) > 20
    assert sum(run for page in PAGES for _, run in blocks(page, "python")) > 8


# ------------------------------------------------------------------------------------- commands


@BY_PAGE
def test_every_command_parses(page):
    group = typer.main.get_command(app)
    for line, complete in commands(page):
        verb, *arguments = shlex.split(line, comments=True)[1:]
        if verb.startswith("--"):
            group.make_context("sentei", [verb, *arguments])
            continue
        assert verb in group.commands, line
        try:
            found = group.commands[verb].make_context(verb, arguments).params
        except Exception as error:
            unfinished = type(error).__name__ == "MissingParameter" and not complete
            if not unfinished:
                raise AssertionError(f"{page.name}: {line}: {error}") from error
            continue
        if complete and "model" in found and "overrides" in found and not found.get("resume"):
            given = {name: found[name] for name in places() if found.get(name)}
            parts = (found["method"], found["sparsity"], None, found["overrides"])
            make_settings(given, *parts)


@BY_PAGE
def test_every_make_target_exists(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = "\n".join(text for text, _ in blocks(page, ""))
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"^make ([a-z]+)", lines, re.M) + re.findall(r"`make ([a-z]+)", outside)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


# ---------------------------------------------------------------------------------------- prose


@BY_PAGE
def test_prose_is_wrapped_at_one_width(page):
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    long = [line for line in prose.splitlines() if len(line) > WIDTH and not line.startswith("|")]
    assert long == []


@pytest.mark.parametrize("name", ["flow.svg", "lost.svg", "path.svg"])
def test_the_pictures_are_of_the_results(name):
    images = ROOT / "docs" / "images"
    draw = runpy.run_path(str(images / "draw.py"))["PICTURES"][name]
    assert (images / name).read_text(encoding="utf-8") == draw(), "run: python docs/images/draw.py"


def test_the_four_papers_can_be_cited():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    ids = {paper["identifiers"][0]["value"] for paper in citation["references"]}
    assert ids == {"arXiv:2206.12562", "arXiv:2411.00969", "arXiv:2105.14636", "arXiv:2104.08682"}
    assert all(paper["title"] and paper["authors"] for paper in citation["references"])


# ---------------------------------------------------------------------------------------- links


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@BY_PAGE
def test_every_link_points_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\[[^\]]*\]\(([^)]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


# ----------------------------------------------------------------------------------------- code


def make_model() -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


def make_tokenizer() -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "pair", "of", "texts", "is", "two"]
    words += [f"unused{number}" for number in range(21)]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What a page may use without making it: a small model, its data, and an empty folder."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    dataset = [
        {"input_ids": torch.randint(0, 32, (8,)), "labels": torch.tensor(i % 2)} for i in range(160)
    ]
    loader = DataLoader(dataset, batch_size=2)
    model = make_model()
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield {
        "model": model,
        "tokenizer": make_tokenizer(),
        "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-3),
        "dataset": dataset,
        "loader": loader,
        "batches": list(loader),
        "make_model": make_model,
        "folder": tmp_path,
        "args": TrainingArguments(
            output_dir="out",
            max_steps=40,
            per_device_train_batch_size=2,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        ),
    }
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@BY_PAGE
def test_python_blocks(page, names):
    names["__name__"] = "docs"
    for number, (text, run) in enumerate(blocks(page, "python"), start=1):
        code = compile(text, f"{page.name}, python block {number}", "exec")
        if run:
            exec(code, names)


def test_shrink_json_is_what_the_loader_reads():
    [text] = [text for text, _ in blocks(ROOT / "docs" / "guides" / "shrink.md", "json")]
    assert Manifest.model_validate_json(text).structures


@BY_CARD
def test_a_cards_three_recipes_are_one(card):
    [python] = [text for text, _ in blocks(card, "python")]
    [yaml] = [text for text, _ in blocks(card, "yaml")]
    command = next(line for line, complete in commands(card) if complete)
    names: dict[str, sentei.Recipe] = {}
    exec(python, names)
    assert sentei.load(yaml) == names["recipe"]
    group = typer.main.get_command(app)
    verb, *arguments = shlex.split(command)[1:]
    found = group.commands[verb].make_context(verb, arguments).params
    made = make_recipe(found["method"], found["sparsity"], None, found["overrides"] or [])
    assert made == names["recipe"]


def test_every_method_has_a_card():
    ours = [m.name for m in methods.known() if m.build.__module__.startswith("sentei.")]
    assert [card.stem for card in CARDS] == ours


def test_the_list_of_methods_is_whole_and_its_bytes_are_declared():
    text = (ROOT / "docs" / "methods" / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\(\1\.md\).*\| (\d+) \|$", text, re.M)
    declared = {card.stem: methods.find(card.stem).build().bytes_per_weight for card in CARDS}
    assert {name: int(number) for name, number in rows} == declared
