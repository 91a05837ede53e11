"""Vectors through the whole command: folders of sentence-transformers in, and out again."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModel
from typer.testing import CliRunner

from helpers.kinds import THINGS, WORDS, lines
from helpers.tasks import task_of as of
from helpers.training import FITTING
from sentei import SenteiWarning, cli, methods, runtime, serialization
from sentei.models.pooling import read_sentence_files
from sentei.tasks.embeddings.processor import SentenceProcessor
from sentei.testing import make_sparse_

FAST = ["--precision", "fp32", "--checkpoints", 1, "--evaluations", 0]
TEXTS = ["The film was GOOD", "a meal was awful", "the book"]
QUICK = ["--set", "schedule.every=2", "--set", "score.window=2", "--set", "schedule.cooldown=0.4"]


def sentei(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def done(*arguments: object) -> str:
    found = sentei(*arguments)
    assert found.exit_code == 0, found.output
    return found.stdout


def refused(*arguments: object) -> str:
    found = sentei(*arguments)
    assert found.exit_code == 2, found.output
    return " ".join(found.stderr.split())


def texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [
        f"{rng.choice(THINGS)} was {rng.choice(WORDS)} the {rng.choice(WORDS)} {i % 3 * 'a '}"
        for i in range(count)
    ]


@pytest.fixture
def library(tiny_model, tmp_path) -> Path:
    """A folder of sentence-transformers, with prompts, a limit and small letters."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    torch.manual_seed(0)
    modules = [Transformer(str(tiny_model)), Pooling(16, ("cls", "mean")), Normalize()]
    prompts = {"query": "was ", "document": "the "}
    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts)
    model.max_seq_length = 9
    model.save(str(tmp_path / "library"))
    return tmp_path / "library"


def train(folder: Path, *rows: dict) -> list[object]:
    return ["--train", lines(folder / "train.jsonl", list(rows)), *FAST, "--batch-size", 16]


def alone(folder: Path, count: int = 64) -> list[object]:
    return train(folder, *({"text": text} for text in texts(count)))


def test_a_folder_of_sentence_transformers_comes_out_as_one(library, tmp_path):
    from sentence_transformers import SentenceTransformer

    given = ["--kind", "embeddings", "--model", library, *alone(tmp_path), *QUICK]
    done("prune", *given, "--epochs", 1, "--sparsity", 0.5, "--out", tmp_path / "run")
    model = tmp_path / "run" / "model"
    ours, theirs = (read_sentence_files(folder) for folder in (model, library))
    assert ours[0] == theirs[0] and ours[1].prompts == theirs[1].prompts
    assert ours[0].modes == ("cls", "mean") and ours[0].normalize
    pruned = SentenceTransformer(str(model), device="cpu")
    assert pruned.max_seq_length == 9 and pruned.prompts["query"] == "was "
    vectors = pruned.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(runtime.compile(model, "fp32").embed(TEXTS), vectors, atol=1e-5)
    plain = AutoModel.from_pretrained(model)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    zeros = sum(int((weight == 0).sum()) for weight in plain.parameters())
    assert zeros == report["pruning"]["zeros"] > 0
    card = ModelCard.load(model / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == (
        *("sentence-transformers", "sentence-similarity"),
    )
    assert "distillation" in card.data.tags and str(tmp_path) not in card.text
    assert "texts as the model before pruning does" in " ".join(card.text.split())
    names: dict[str, object] = {}
    code = card.text.partition("```python\n")[2].partition("```")[0]
    exec(code.replace('"NAME"', repr(str(model))), names)
    assert names["vectors"].shape == (1, 32)
    checkpoint = next((tmp_path / "run" / "checkpoints").iterdir())
    assert SentenceTransformer(str(checkpoint), device="cpu").encode(TEXTS).shape == (3, 32)


def test_a_bare_encoder_gets_the_mean(tiny_model, tmp_path):
    from sentence_transformers import SentenceTransformer

    given = ["--kind", "embeddings", "--model", tiny_model, *alone(tmp_path)]
    done("prune", *given, "--epochs", 0, "--method", "wanda", "--out", tmp_path / "run")
    model = tmp_path / "run" / "model"
    made = SentenceTransformer(str(model), device="cpu")
    np.testing.assert_allclose(
        runtime.compile(model, "fp32").embed(TEXTS), made.encode(TEXTS), atol=1e-5
    )


@pytest.mark.parametrize("method", methods.known(), ids=lambda method: method.name)
def test_every_method_prunes_embeddings(method, tiny_model, tmp_path):
    recipe, model = method.build(0.5), tiny_model
    for path, value in FITTING.items():
        with suppress(ValueError):
            recipe = serialization.override(recipe, [f"{path}={value}"])
    if recipe.schedule.from_model:
        sparse = AutoModel.from_pretrained(tiny_model)
        make_sparse_(sparse, recipe)
        shutil.copytree(tiny_model, tmp_path / "sparse")
        sparse.save_pretrained(tmp_path / "sparse")
        model = tmp_path / "sparse"
    (tmp_path / "recipe.yaml").write_text(serialization.dump(recipe))
    given = ["--kind", "embeddings", "--model", model, *alone(tmp_path, 48), "--epochs", 6]
    with warnings.catch_warnings():  # so short a run is no measure of a learned sparsity
        warnings.simplefilter("ignore", SenteiWarning)
        done("prune", *given, "--recipe", tmp_path / "recipe.yaml", "--out", tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["metric"] == "neighbors@10" and report["pruning"]["pruned"] > 0
    if report["dense"]:
        assert report["dense"]["cosine"] > 0.999


SCORED = [
    {"sentence1": one, "sentence2": other, "score": float(one.split()[2] == other.split()[2])}
    for one, other in zip(texts(96), texts(96, seed=1), strict=True)
]
ANSWERED = [
    {"query": f"the {thing} was {word}", "positive": f"{word} {thing}", "negative": f"a {thing}"}
    for thing in THINGS
    for word in WORDS
] * 4


@pytest.mark.parametrize(
    ("rows", "metric"), [(SCORED, "spearman"), (ANSWERED, "ndcg@10")], ids=["scores", "answers"]
)
def test_labels_are_learnt_beside_the_teacher(rows, metric, library, tmp_path):
    """More than texts alone would teach: the model knows nothing of these labels before."""
    given = ["--kind", "embeddings", "--model", library, *train(tmp_path, *rows)]
    given += ["--eval", tmp_path / "train.jsonl", "--epochs", 12, "--sparsity", 0.25]
    given += ["--learning-rate", 5e-3, "--method", "magnitude", *QUICK[:2], "--set", "dropout=0"]
    found = {}
    for weight in (0, 1):
        out = tmp_path / f"run{weight}"
        done("prune", *given, "--label-weight", weight, "--out", out)
        found[weight] = json.loads((out / "report.json").read_text())
    assert found[1]["metric"] == metric
    assert found[1]["sparse"][metric] > found[0]["sparse"][metric] + 0.05
    assert "loss" not in found[1]["sparse"]  # nothing was compared with the teacher


def test_a_teacher_of_another_width(library, tiny_model, tmp_path):
    """Two vectors end to end against one: only similarities compare."""
    given = ["--kind", "embeddings", "--model", tiny_model, *alone(tmp_path), "--epochs", 1]
    given += ["--teacher", library, "--method", "magnitude", *QUICK[:2], "--out", tmp_path / "run"]
    words = refused("prune", *given)
    assert "its embeddings have 32 numbers and the model's 16" in words
    assert "add --cosine-weight 0 --mse-weight 0" in words
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    done("prune", *given, "--cosine-weight", 0, "--mse-weight", 0)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert set(report["sparse"]) == {"neighbors@10"}


def test_a_cache_gives_the_same(tiny_model, tmp_path):
    given = ["--kind", "embeddings", "--model", tiny_model, *alone(tmp_path), "--epochs", 1]
    given += ["--method", "magnitude", *QUICK[:2], "--teacher-cache", tmp_path / "cache"]
    losses = []
    for number in range(2):
        out = tmp_path / f"run{number}"
        done("prune", *given, "--out", out)
        losses.append((out / "metrics.jsonl").read_text())
    assert losses[0] == losses[1] and any((tmp_path / "cache").iterdir())
    other = refused("prune", *given, "--max-length", 6, "--out", tmp_path / "other")
    assert "holds the answers of another teacher" in other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dense-epochs", 1], "--dense-epochs 1: --kind embeddings prunes a trained model"),
        (["--teacher", "dense"], "--teacher dense: there is no dense training in this run"),
        (["--metric", "spearman"], "can be measured by neighbors@10, cosine"),
        (["--regression"], "--regression: not read by --kind embeddings"),
        (["--text-column", "title"], "no column 'title'"),
    ],
)
def test_what_is_refused(options, message, tiny_model, tmp_path):
    given = ["--kind", "embeddings", "--model", tiny_model, *alone(tmp_path, 16)]
    given += QUICK
    assert message in refused("inspect", *given, *options)


def test_texts_alone_are_measured_by_a_model(tiny_model, tmp_path):
    file = lines(tmp_path / "texts.jsonl", [{"text": text} for text in texts(16)])
    given = ["evaluate", "--kind", "embeddings", "--model", tiny_model, "--eval", file]
    assert "name that with --reference" in refused(*given)
    found = json.loads(done(*given, "--reference", tiny_model, "--json"))
    assert found["metrics"]["neighbors@10"] == 1


def test_an_encoder_decoder_is_refused(tiny_model, tmp_path):
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    shutil.copytree(tiny_model, tmp_path / "t5")
    T5Model(config).save_pretrained(tmp_path / "t5")
    given = ["inspect", "--kind", "embeddings", "--model", tmp_path / "t5", *alone(tmp_path, 16)]
    given += QUICK
    assert "takes an encoder alone" in refused(*given)


def test_half_a_model_is_refused(tiny_model, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_model, tmp_path / "half")
    weights = load_file(tmp_path / "half" / "model.safetensors")
    kept = {name: one for name, one in weights.items() if "layer.1" not in name}
    save_file(kept, tmp_path / "half" / "model.safetensors", {"format": "pt"})
    given = ["inspect", "--kind", "embeddings", "--model", tmp_path / "half", *alone(tmp_path, 16)]
    given += QUICK
    assert "would start at random" in refused(*given)


def test_the_usual_learning_rate_is_the_tasks():
    def rate(**options):
        from sentei.run.options import settings_from

        return settings_from({"model": "m", **options}, {}).training.learning_rate

    assert (rate(), rate(kind="embeddings")) == (5e-5, 2e-4)
    assert rate(kind="embeddings", learning_rate=5e-5) == 5e-5


def test_recipes_ask_their_teacher_for_what_is_inside():
    task = of(kind="embeddings")
    auto = task.adapt(methods.find("auto").build())
    assert (auto.distill.labels, auto.distill.logits, auto.distill.hidden) == (0, 0, 1)
    outside = methods.find("auto").build(hidden=0.0)
    assert task.adapt(outside).distill is None
    assert task.adapt(methods.find("platon").build()) == methods.find("platon").build()
    assert of().adapt(outside) is outside


def test_prompts_are_put_before_texts(library):
    task = of(kind="embeddings")
    processor = task.load_processor(str(library))
    assert isinstance(processor, SentenceProcessor) and processor.width == 32
    ready = processor.pooling.ready
    assert ready("x", ("query",)) == "was x" and ready("x", ("passage", "document")) == "the x"
    assert ready("x") == "x" and task.length(processor) == 9
