"""A teacher in the Trainer as it is, in an Accelerate loop, and in the command."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from typer.testing import CliRunner

import sentei
from helpers.comparing import wait_for
from helpers.processes import Command
from sentei import cli
from sentei.distill.cache import FILE, ROW_BYTES

pytestmark = pytest.mark.usefixtures("no_pages")

EVERYTHING = sentei.Distillation(labels=0.5, logits=1, hidden=1, attention=1)


@pytest.fixture(autouse=True)
def no_accelerator_is_left():
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def bert(seed: int, layers: int = 2, dropout: float = 0.0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=100,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForSequenceClassification(config)


def rows(count: int = 48) -> list[dict[str, torch.Tensor]]:
    tokens = torch.randint(0, 100, (count, 6), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row[0] % 2} for row in tokens]


def trainer(model, folder: Path, *callbacks: TrainerCallback, **settings) -> Trainer:
    arguments = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 5e-3,
        "logging_steps": 1,
        "save_strategy": "no",
    } | settings
    return Trainer(
        model,
        TrainingArguments(
            str(folder), use_cpu=True, report_to=[], disable_tqdm=True, seed=3, **arguments
        ),
        train_dataset=rows(),
        eval_dataset=rows(8),
        callbacks=list(callbacks),
    )


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def closest(a, b, **tolerance) -> None:
    for name in a:
        torch.testing.assert_close(a[name], b[name], **tolerance)


class Losses(TrainerCallback):
    """What the distiller computed, beside what the Trainer logged."""

    def __init__(self, distiller):
        self.distiller, self.mine, self.logged, self.evaluated = distiller, [], [], []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            terms, weights = self.distiller.terms, self.distiller.distillation
            self.mine.append(sum(getattr(weights, name) * float(t) for name, t in terms.items()))
            self.logged.append(logs["loss"])

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.evaluated.append(metrics["eval_loss"])


def test_the_trainer_as_it_is(tmp_path):
    student, teacher = bert(0, dropout=0.1), bert(1, layers=4)
    frozen = weights(teacher)
    distiller = sentei.Distiller(student, teacher, EVERYTHING).attach()
    losses = Losses(distiller)
    pruning = sentei.PruningCallback(sentei.platon(0.8, window=2, every=2))
    run = trainer(student, tmp_path, losses, pruning, eval_strategy="epoch")
    run.train()
    assert losses.logged == pytest.approx(losses.mine, rel=1e-3) and len(losses.logged) == 24
    assert losses.logged[-1] < losses.logged[0] / 2
    assert pruning.report.pruned == round(0.8 * pruning.report.prunable)
    closest(weights(teacher), frozen, rtol=0, atol=0)
    distiller.detach()
    with torch.no_grad():  # the last evaluation was of the labels alone
        batch = {k: torch.stack([row[k] for row in rows(8)]) for k in ("input_ids", "labels")}
        own = float(student.eval()(**batch).loss)
    assert losses.evaluated[-1] == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("labels", [0.0, 0.5])
def test_a_trainer_that_smooths_labels_passes_the_teacher_over(labels, tmp_path):
    student = bert(0)
    pruning = sentei.PruningCallback(sentei.magnitude(0.5, every=2))
    run = trainer(student, tmp_path, pruning, label_smoothing_factor=0.1, max_steps=4)
    distillation = sentei.Distillation(labels=labels, logits=0.5)
    with (
        sentei.Distiller(student, bert(1), distillation),
        pytest.raises(ValueError, match=r"label_smoothing_factor=0\.1: .* detach the distiller"),
    ):
        run.train()
    run.train()  # the distiller is gone


def test_a_trainer_with_its_own_loss_is_named(tmp_path):
    student = bert(0)
    run = trainer(student, tmp_path)
    run.compute_loss_func = lambda outputs, labels, **_: outputs.logits.sum()
    with (
        sentei.Distiller(student, bert(1)),
        pytest.raises(ValueError, match="label_smoothing_factor or compute_loss_func"),
    ):
        run.train()


def test_accumulated_batches_are_one_batch(tmp_path):
    """2 x 4 examples and 1 x 8, down to rounding; SGD would show any factor."""
    ends = []
    for size, times in ((8, 1), (4, 2), (2, 4)):
        student, teacher = bert(0), bert(1)
        settings = {"gradient_accumulation_steps": times, "per_device_train_batch_size": size}
        run = trainer(
            student, tmp_path, optim="sgd", learning_rate=0.1, max_grad_norm=0, **settings
        )
        with sentei.Distiller(student, teacher, EVERYTHING):
            run.train()
        assert run.state.global_step == 12
        ends.append(weights(student))
    moved = max(float((ends[0][n] - p).abs().max()) for n, p in weights(bert(0)).items())
    assert moved > 1e-2
    closest(ends[1], ends[0], rtol=1e-4, atol=1e-6)
    closest(ends[2], ends[0], rtol=1e-4, atol=1e-6)


def test_the_teacher_computes_in_the_trainers_precision(tmp_path):
    """Accelerate puts autocast inside the model, where the model's own hooks are not."""
    student, teacher = bert(0), bert(1)
    seen = []
    teacher.classifier.register_forward_hook(lambda m, args, out: seen.append(out.dtype))
    own = []
    student.classifier.register_forward_hook(lambda m, args, out: own.append(out.dtype))
    with sentei.Distiller(student, teacher, EVERYTHING):
        trainer(student, tmp_path, bf16=True, max_steps=2).train()
    assert seen == own == [torch.bfloat16] * 2


def test_an_accelerate_loop():
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    ends = []
    for size in (8, 4):
        student, teacher = bert(0), bert(1)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        data = DataLoader(rows(), batch_size=size)
        if size == 4:
            student, optimizer, data = accelerator.prepare(student, optimizer, data)
        with sentei.Distiller(student, teacher, EVERYTHING) as distiller:
            student.train()
            for batch in data:
                if size == 8:
                    student(**batch).loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    continue
                with accelerator.accumulate(student):
                    accelerator.backward(student(**batch).loss)
                    optimizer.step()
                    optimizer.zero_grad()
        assert set(distiller.terms) == {"labels", "logits", "hidden", "attention"}
        ends.append(weights(student))
    closest(ends[1], ends[0], rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------- command

FAST = ["--set", "schedule.every=2", "--set", "score.window=2", "--precision", "fp32"]
LEARN = ["--set", "distill.hidden=0.5", "--set", "distill.attention=0.5"]
FADE = ["--set", "distill.fade=[0.1,0.9]"]


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def done(*arguments: object):
    finished = run(*arguments)
    assert finished.exit_code == 0, finished.output
    return finished


@pytest.fixture
def task(tiny_model, data) -> list[str]:
    options = {"--model": tiny_model, "--train": data["train"], "--eval": data["eval"]}
    return [str(word) for pair in options.items() for word in pair]


@pytest.fixture(scope="module")
def tuned(tiny_model, data, tmp_path_factory) -> Path:
    """A folder with a model that was fine-tuned on the task."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    options = ["--model", tiny_model, "--train", data["train"], "--eval", data["eval"]]
    options += ["--method", "magnitude", "--sparsity", 0, "--set", "schedule.every=1"]
    done("prune", *options, "--epochs", 6, "--learning-rate", 1e-2, "--out", out)
    assert json.loads((out / "report.json").read_text())["sparse"]["accuracy"] > 0.9
    return out / "model"


def same(a: Path, b: Path) -> bool:
    a, b = (load_file(run / "model" / "model.safetensors") for run in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_teacher_made_in_the_run(task, tmp_path):
    out = tmp_path / "run"
    options = [*task, *FAST, "--teacher", "dense", *LEARN, "--dense-epochs", 4]
    finished = done("prune", *options, "--epochs", 4, "--learning-rate", 1e-2, "--out", out)
    assert (
        "Teacher: dense; loss: 0.5 x labels + 0.5 x logits (kl, temperature 2)" in finished.stderr
    )
    assert "layers: 1->1, 2->2" in finished.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["settings"]["teacher"] == "dense" and "1->1" in report["settings"]["learns"]
    assert report["pruning"]["recipe"]["distill"]["hidden"] == 0.5
    assert yaml.safe_load((out / "recipe.yaml").read_text())["distill"]["attention"] == 0.5
    assert yaml.safe_load((out / "run.yaml").read_text())["recipe"]["distill"]["hidden"] == 0.5
    assert report["sparse"]["accuracy"] > 0.8
    first = report["train"][0]  # of one batch: its loss is the sum of its terms
    weights = {name: report["pruning"]["recipe"]["distill"][name] for name in first["terms"]}
    assert len(weights) == 4 and first["step"] == 1
    whole = sum(weight * first["terms"][name] for name, weight in weights.items())
    assert first["loss"] == pytest.approx(whole, rel=1e-3)
    assert done("verify", out)
    # The teacher had a say: the same run without one ends elsewhere.
    alone = tmp_path / "alone"
    options = [*task, *FAST, "--dense-epochs", 4, "--epochs", 4, "--learning-rate", 1e-2]
    done("prune", *options, "--out", alone)
    assert same(out / "dense", alone / "dense") and not same(out, alone)


@pytest.mark.parametrize("start", ["teacher", "pretrained"])
def test_where_the_student_starts(task, tiny_model, tmp_path, start):
    """Seen in the embeddings, which stay near to where they were."""
    out = tmp_path / "run"
    options = [*task, *FAST, "--dense-epochs", 2, "--epochs", 1, "--learning-rate", 1e-2]
    options += ["--teacher", "dense", "--set", f"distill.student={start}"]
    options += ["--set", "distill.hidden=0"]  # which would draw them to the teacher's
    assert run("prune", *options, "--out", out).exit_code == 0
    name = "bert.embeddings.word_embeddings.weight"
    before = load_file(tiny_model / "model.safetensors")[name.removeprefix("bert.")]
    tuned = load_file(out / "dense" / "model" / "model.safetensors")[name]
    after = load_file(out / "model" / "model.safetensors")[name]
    distances = [float((after - origin).norm()) for origin in (before, tuned)]
    assert (distances[0] < distances[1]) == (start == "pretrained")


def test_the_model_before_pruning_teaches(tuned, data, tmp_path):
    options = ["--model", tuned, "--train", data["train"], "--eval", data["eval"], *FAST]
    finished = done("prune", *options, "--teacher", "self", "--out", tmp_path / "run")
    assert "Teacher: self" in finished.stderr
    method = ["--method", "knowledge_aware", "--set", "schedule.stages=5", "--precision", "fp32"]
    finished = done("prune", *options[:6], *method, "--out", tmp_path / "default", "--json")
    assert json.loads(finished.stdout)["settings"]["teacher"] == "self"


def test_a_recipe_that_can_do_without_its_teacher(task, tuned, data, tmp_path):
    """It learns from one where there is one, and says so where there is none."""
    optional = ["--set", "distill={required: false}"]
    finished = done("prune", *task, *FAST, *optional, "--out", tmp_path / "alone")
    assert (
        "Teacher: none; --model" in finished.stderr and "--dense-epochs 3 would" in finished.stderr
    )
    report = json.loads((tmp_path / "alone" / "report.json").read_text())
    assert report["settings"]["teacher"].startswith("none: --model")
    assert not report["train"][0]["terms"]
    done("prune", *task, *FAST, "--out", tmp_path / "never")
    assert same(tmp_path / "alone", tmp_path / "never")
    assert "Teacher: none;" in done("inspect", *task, *FAST, *optional).output
    files = ["--train", data["train"], "--eval", data["eval"]]
    finished = done(
        "prune", "--model", tuned, *files, *FAST, *optional, "--out", tmp_path / "taught"
    )
    assert "Teacher: self" in finished.stderr
    refused = run(
        "prune", *task, *FAST, *optional, "--teacher", "self", "--out", tmp_path / "asked"
    )
    assert refused.exit_code == 2 and "no head trained for this task" in refused.stderr


@pytest.mark.parametrize("teacher", ["dense", "named"])
def test_resume_is_bit_for_bit(task, tuned, tmp_path, teacher):
    """With the teacher's answers kept, too: what is read back is what was computed first."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = [*task, *FAST, *LEARN, *FADE, "--epochs", 12, "--checkpoints", 6, "--batch-size", 16]
    if teacher == "dense":
        options += ["--teacher", "dense", "--dense-epochs", 1]
    else:
        options += ["--teacher", tuned, "--teacher-cache", tmp_path / "answers"]
    done("prune", *options, "--out", whole)
    shutil.rmtree(tmp_path / "answers", ignore_errors=True)
    process = Command("prune", *options, "--out", stopped)
    wait_for(lambda: list(stopped.glob("checkpoints/checkpoint-*")))
    process.send(signal.SIGINT)
    assert process.wait().code == 130, process.err
    done("prune", "--out", stopped, "--resume")
    assert same(whole, stopped)


def answers_in(folder: Path) -> list[tuple[bytes | int | None, ...]]:
    with closing(sqlite3.connect(folder / FILE)) as database:
        return database.execute("SELECT * FROM outputs ORDER BY key").fetchall()


def test_answers_are_kept_and_shared_between_runs(tuned, task, tmp_path):
    answers = tmp_path / "answers"
    options = [*task, *FAST, *LEARN, "--teacher", tuned, "--teacher-cache", answers]
    looked = json.loads(done("inspect", *options, "--json").stdout)
    done("prune", *options, "--out", tmp_path / "first")
    rows = answers_in(answers)
    texts = {json.loads(line)["text"] for line in Path(task[3]).read_text().splitlines()}
    size = sum(len(column) for _, _, *columns in rows for column in columns if column)
    assert size + ROW_BYTES * len(rows) == looked["teacher"]["cache_bytes"] * len(texts) / 160
    done("prune", *options, "--sparsity", 0.5, "--out", tmp_path / "second")
    assert answers_in(answers) == rows
    other = run("prune", *options, "--set", "distill.hidden=0", "--out", tmp_path / "third")
    assert other.exit_code == 2 and "holds other layers" in other.stderr
    assert not (tmp_path / "third").exists()


def test_inspect_tells_of_the_teacher(task, tuned, tiny_model, tmp_path):
    options = [*task, *FAST, *LEARN, "--teacher", tuned]
    facts = json.loads(done("inspect", *options, "--json").stdout)
    assert facts["memory"]["teacher"] == sum(
        tensor.nbytes for tensor in load_file(tuned / "model.safetensors").values()
    )
    assert facts["teacher"]["name"] == str(tuned) and "layers: 1->1" in facts["teacher"]["learns"]
    words = done("inspect", *options, "--teacher-cache", tmp_path / "answers").output
    assert "Teacher:" in words and "the teacher's answers to all texts" in words
    alone = json.loads(done("inspect", *task, *FAST, "--json").stdout)
    assert alone["teacher"] is None and alone["memory"]["teacher"] == 0
    assert not list(tmp_path.iterdir())


def test_classes_are_numbered_as_the_teacher_numbers_them(task, tuned, data, tmp_path):
    """A teacher with its classes the other way round teaches the same."""
    turned = tmp_path / "turned"
    model = AutoModelForSequenceClassification.from_pretrained(tuned)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    with torch.no_grad():
        for p in (model.classifier.weight, model.classifier.bias):
            p.copy_(p.flip(0))
    model.config.id2label = {0: "positive", 1: "negative"}
    model.config.label2id = {"positive": 0, "negative": 1}
    model.save_pretrained(turned)
    shutil.copy(tuned / "tokenizer.json", turned)
    shutil.copy(tuned / "tokenizer_config.json", turned)
    options = [*task, *FAST, "--teacher", turned, "--epochs", 6, "--learning-rate", 1e-2]
    out = tmp_path / "run"
    done("prune", *options, "--sparsity", 0.3, "--set", "distill.labels=0", "--out", out)
    report = json.loads((out / "report.json").read_text())
    assert report["labels"] == ["positive", "negative"]
    assert report["sparse"]["accuracy"] > 0.8  # learnt from the teacher alone
    measured = json.loads(done("evaluate", "--model", turned, *task[2:], "--json").stdout)
    assert measured["metrics"]["accuracy"] > 0.9
    # The model that is pruned may number them so as well: it teaches itself.
    done(
        "prune",
        "--model",
        turned,
        *options[2:6],
        *FAST,
        "--teacher",
        "self",
        "--out",
        tmp_path / "self",
    )
    report = json.loads((tmp_path / "self" / "report.json").read_text())
    assert report["dense"]["accuracy"] > 0.9 and report["labels"] == ["positive", "negative"]


BAD = {
    "nobody": (["--teacher", "self"], "no head trained for this task. Fine-tune it first with"),
    "by default": (
        ["--method", "knowledge_aware", "--set", "schedule.stages=5"],
        "name a fine-tuned model with --teacher",
    ),
    "no dense": (["--teacher", "dense"], "give it --dense-epochs"),
    "no folder": (["--teacher", "./missing"], "--teacher ./missing: no such folder"),
    "no use": (
        ["--method", "platon", *FAST, "--teacher-cache", "answers"],
        "the recipe has no `distill`",
    ),
    "no one": (["--teacher-cache", "answers"], "this run has no teacher; --model"),
    "layers": (
        ["--teacher", "dense", "--dense-epochs", "1", "--set", "distill.hidden=1",
         "--set", "distill.layers=[1, 2, 3]"],
        "names 3 layers of the teacher: the student has 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("verb", ["prune", "inspect"])
@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_bad_teachers(verb, options, message, task, tmp_path):
    if "--method" not in options:
        options = [*FAST, *options]
    finished = run(verb, *task, *options, "--out", tmp_path / "run")
    assert finished.exit_code == 2, finished.output
    assert message in finished.stderr.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def test_numbers_are_learnt_from_the_labels_alone_where_the_recipe_says_so(tiny_model, tmp_path):
    rows = [{"text": f"good {i}", "label": float(i % 5)} for i in range(64)]
    for name in ("train", "eval"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    files = ["--train", tmp_path / "train.jsonl", "--eval", tmp_path / "eval.jsonl"]
    options = ["--model", tiny_model, *files, "--regression", "--dense-epochs", 1, *FAST]
    finished = run("inspect", *options)
    assert finished.exit_code == 0
    assert "Teacher: none; the recipe learns numbers from the labels alone" in " ".join(
        finished.stdout.split()
    )
    refused = run("inspect", *options, "--teacher", "dense")
    assert refused.exit_code == 2 and "add --set distill.regression=teacher" in " ".join(
        refused.stderr.split()
    )
    finished = run("inspect", *options, "--teacher", "dense", "--set", "distill.regression=teacher")
    assert finished.exit_code == 0 and "Teacher: none" not in finished.output


def test_a_teacher_without_a_trained_head(task, tiny_model, tmp_path):
    finished = run("prune", *task, *FAST, "--teacher", tiny_model, "--out", tmp_path / "run")
    assert finished.exit_code == 2 and f"--teacher {tiny_model}: " in finished.stderr
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_other_words(task, tuned, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tuned, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    finished = run("prune", *task, *FAST, "--teacher", other, "--out", tmp_path / "run")
    assert finished.exit_code == 2 and "reads other tokens" in finished.stderr
