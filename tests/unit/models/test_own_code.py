"""Models with code of their own: never run unasked, never a question, and run where it is asked."""

import ast
import builtins
import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig
from transformers import BertForSequenceClassification as Classifier

import sentei
from helpers.damage import own_code, setting
from sentei import runtime, shrink
from sentei.models.loading import Head, load_model, load_named, load_tokenizer, saved_labels
from sentei.run.verify import verify
from sentei.tasks import kinds

CLASSES = {"num_labels": 2, "id2label": {0: "negative", 1: "positive"}}
HEAD = Head(AutoModelForSequenceClassification, CLASSES)


@pytest.fixture
def canary(tmp_path):
    """What the code leaves when it is run."""
    return tmp_path / "canary"


@pytest.fixture
def folder(tiny_model, tmp_path, canary, monkeypatch):
    """A classifier with code of its own."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    torch.manual_seed(0)
    Classifier(BertConfig.from_pretrained(tiny_model, **CLASSES)).save_pretrained(folder)
    own_code(folder, canary)
    monkeypatch.setattr(builtins, "input", _never)
    return folder


def _never(*question):
    raise AssertionError(f"a question on the terminal: {question}")


WAYS = {
    "model": lambda folder, **trust: load_model(str(folder), HEAD, **trust),
    "named": lambda folder, **trust: load_named(folder, **trust),
    "labels": lambda folder, **trust: saved_labels(str(folder), **trust),
    "shrink": lambda folder, **trust: shrink.load(folder, **trust),
    "engine": lambda folder, **trust: runtime.compile(folder, fallback="torch", **trust),
}


@pytest.mark.filterwarnings("ignore:torch runs the model")
@pytest.mark.parametrize("way", WAYS)
def test_code_runs_only_where_it_is_trusted(way, folder, canary):
    with pytest.raises(ValueError, match=r"code of its own, which is not run unasked.*--trust"):
        WAYS[way](folder)
    assert not canary.exists()
    WAYS[way](folder, trust_remote_code=True)
    assert canary.exists()


def test_verify_says_so(folder, canary):
    *_, loads = verify(folder, None)
    assert not loads.holds and "code of its own" in loads.evidence and not canary.exists()
    *_, loads = verify(folder, None, trust_remote_code=True)
    assert loads.holds and canary.exists()


@pytest.mark.parametrize("kind", kinds.known())
def test_no_task_runs_what_makes_its_input(kind, folder, canary):
    """The code of a tokenizer or an image processor, beside a model that needs none."""
    (folder / "toy_code.py").write_text(
        f"from pathlib import Path\nPath({str(canary)!r}).write_text('run')\n"
        "from transformers import BertTokenizer, ViTImageProcessorPil\n"
        "class ToyTokenizer(BertTokenizer):\n    pass\n"
        "class ToyImages(ViTImageProcessorPil):\n    pass\n"
    )
    setting(model_type="bert", architectures=None, auto_map={})(folder)
    own = {"tokenizer_class": "ToyTokenizer"}
    own["auto_map"] = {"AutoTokenizer": ["toy_code.ToyTokenizer", None]}
    setting("tokenizer_config.json", **own)(folder)
    own = {"image_processor_type": "ToyImages"}
    own["auto_map"] = {"AutoImageProcessor": "toy_code.ToyImages"}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    task = kinds.known()[kind]()
    with suppress(ValueError):  # or transformers has a class for it, and that is taken
        plain = task.load_processor(str(folder))
        plain = plain.tokenizer if kind == "embeddings" else plain
        assert not type(plain).__name__.startswith("Toy")
    assert not canary.exists()
    processor = task.load_processor(str(folder), trust_remote_code=True)
    processor = processor.tokenizer if kind == "embeddings" else processor
    assert canary.exists() and type(processor).__name__.startswith("Toy")


def test_a_tokenizer_of_ones_own_is_a_sentence(folder, canary):
    setting("tokenizer_config.json", auto_map={"AutoTokenizer": ["toy_code.X", None]})(folder)
    setting("tokenizer_config.json", tokenizer_class="X")(folder)
    with pytest.raises(ValueError, match=r"--model .*: its tokenizer comes with code of its own"):
        load_tokenizer(str(folder))
    assert not canary.exists()


def test_code_that_transformers_has_itself_is_not_asked_for(folder, canary):
    """A model type that is known needs no code, though it brings some."""
    setting(model_type="bert", architectures=["BertForSequenceClassification"])(folder)
    model, trained = load_model(str(folder), HEAD)
    assert type(model) is Classifier and trained and not canary.exists()


def test_attention_out_of_the_hub_is_not_fetched(folder, canary):
    setting(
        model_type="bert",
        architectures=["BertForSequenceClassification"],
        attn_implementation="somebody/attention",
    )(folder)
    for way in WAYS.values():
        way(folder)
    assert not canary.exists()


def test_every_load_by_transformers_says_whether_code_is_trusted():
    """An Auto class that is not told asks on the terminal."""
    silent = []
    for path in Path(sentei.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = node.func.value
                if node.func.attr in ("from_pretrained", "from_config") and _is_auto(of):
                    said = [keyword.arg for keyword in node.keywords]
                    if "trust_remote_code" not in said and None not in said:  # None: **trust
                        silent.append(f"{path.name}:{node.lineno}")
    assert silent == []


def _is_auto(of):
    """Whether a class is one that may be transformers' Auto...: by name, or held by a variable."""
    name = of.id if isinstance(of, ast.Name) else ""
    return name.startswith("Auto") or name.islower()
