"""From folders to the table, the page and the file."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from sentei import report as reports
from sentei.compare.collect import collect
from sentei.compare.plan import load
from sentei.compare.runs import Runs
from sentei.records import Comparison, PruningReport, RunReport, SizeRecord
from sentei.report.compare_words import difference, sparsity
from sentei.run.result import finish

VALUES = {
    ("start", 0.0): [0.90, 0.92],
    ("dense", 0.0): [0.91, 0.93],
    ("magnitude", 0.8): [0.70, 0.80],
    ("platon", 0.8): [0.80, 0.84],
    ("magnitude", 0.9): [0.75, 0.65],
    ("platon", 0.9): [0.60, None],
}
"""Accuracy by recipe and sparsity, for seeds 1 and 2; None failed."""


def run_report(value: float, share: float) -> RunReport:
    return RunReport(
        sentei="0.1.0",
        created="now",
        title="tiny on words",
        model="tiny",
        model_type="bert",
        task="words",
        problem="classification",
        metric="accuracy",
        labels=("a", "b"),
        train_examples=160,
        eval_examples=40,
        dense=None,
        sparse={"loss": 0.5, "accuracy": value},
        pruning=PruningReport(
            method="any",
            recipe={},
            step=10,
            total_steps=10,
            target=share,
            prunable=1000,
            pruned=round(1000 * share),
            parameters=2000,
            zeros=round(1000 * share),
            sites=(),
            updates=(),
            weight_histogram=None,
            score_histogram=None,
        ),
        train=(),
        evaluations=(),
        sizes=SizeRecord(**dict.fromkeys(SizeRecord.model_fields, 1)),
        settings={},
        environment={"device": "cpu", "command": "any"},
        seconds={"total": 60.0},
    )


@pytest.fixture
def runs(tmp_path):
    plan = {
        "settings": {"model": "tiny", "task": "sst2", "dense_epochs": 1},
        "tasks": {"words": {}},
        "recipes": ["magnitude", "platon"],
        "sparsities": [0.8, 0.9],
        "seeds": [1, 2],
    }
    runs = Runs(load(plan), tmp_path)
    for run in runs.values():
        value = VALUES[run.recipe, run.sparsity][run.seed - 1]
        run.folder.mkdir(parents=True)
        if value is None:
            run.error_file.write_text("it diverged [at step 3]\n\nTraceback")
        else:
            finish(run_report(value, run.sparsity), run.folder, page=False)
    return runs


def test_summaries(runs):
    found = {(s.recipe, s.sparsity): s for s in collect(runs).summaries}
    assert found.keys() == VALUES.keys()
    platon = found["platon", 0.8]
    assert (platon.count, platon.mean) == (2, pytest.approx(0.82))
    assert platon.deviation == pytest.approx(0.02 * 2**0.5)
    assert (platon.pairs, platon.difference) == (2, pytest.approx(0.07))
    assert platon.high - platon.low == pytest.approx(2 * 12.7062 * 0.03, abs=1e-4)
    assert platon.folders == tuple(f"runs/words/platon/0.8/seed{seed}" for seed in (1, 2))
    alone = found["platon", 0.9]
    assert (alone.count, alone.deviation, alone.pairs) == (1, None, 1)
    assert (alone.difference, alone.low) == (pytest.approx(-0.15), None)
    assert found["magnitude", 0.8].difference is None and found["dense", 0.0].difference is None
    assert {key for key, s in found.items() if s.front} == {("platon", 0.8), ("magnitude", 0.9)}


def test_differences_over_sparsities_are_averaged_within_a_seed(runs):
    """Seed 1: 0.10 and -0.15; seed 2, 0.04 at the lower one alone, would make it look easy."""
    [found] = collect(runs).differences  # of one task no more is to be said than the table says
    assert (found.recipe, found.sparsity, found.count) == ("platon", None, 1)
    assert found.mean == pytest.approx(-0.025)


def test_differences_over_tasks(runs, tmp_path):
    tasks = {"words": {}, "other": {}}
    both = Runs(
        runs.plan.model_copy(update={"tasks": dict.fromkeys(tasks, runs.plan.tasks["words"])}),
        tmp_path,
    )
    for run in both.values():
        if run.task == "other" and run.seed == 1 and run.sparsity:
            share = 0.5 if run.recipe == "magnitude" else 0.7
            finish(run_report(share, run.sparsity), run.folder, page=False)
    found = {d.sparsity: d for d in collect(both).differences}
    assert found.keys() == {0.8, 0.9, None}
    assert (found[0.8].count, found[0.8].mean) == (3, pytest.approx((0.10 + 0.04 + 0.20) / 3))
    assert (found[0.9].count, found[0.9].mean) == (2, pytest.approx((-0.15 + 0.20) / 2))
    assert (found[None].count, found[None].mean) == (2, pytest.approx((-0.025 + 0.2) / 2))


def test_of_perplexity_less_is_better(runs, tmp_path):
    for run in runs.values():
        if run.done:
            report = reports.read(run.folder)
            values = {"perplexity": 10 * report.sparse["accuracy"]}
            changed = report.model_copy(update={"metric": "perplexity", "sparse": values})
            finish(changed, run.folder, page=False)
    comparison = collect(runs)
    ringed = {(s.recipe, s.sparsity) for s in comparison.summaries if s.front}
    assert ringed == {("platon", 0.9)}
    assert not comparison.differences  # other units than a share's
    assert "perplexity" in printed(comparison) and "8.2 ± 0.3" in printed(comparison)
    assert "perplexity (lower is better)" in reports.render_comparison(comparison)


def test_a_stray_zero_does_not_reach_the_front(runs):
    for run in runs.values():
        if run.done and run.sparsity == 0.9 and run.recipe == "platon":
            report = reports.read(run.folder)
            more = {"prunable": 100_000, "pruned": 90_002}
            pruning = report.pruning.model_copy(update=more)
            finish(report.model_copy(update={"pruning": pruning}), run.folder, page=False)
    ringed = {(s.recipe, s.sparsity) for s in collect(runs).summaries if s.front}
    assert ringed == {("platon", 0.8), ("magnitude", 0.9)}


def test_runs_that_are_not_there(runs):
    (runs["runs/words/dense/seed2"].folder / "report.json").unlink()
    comparison = collect(runs)
    assert [run.folder for run in comparison.of("missing")] == ["runs/words/dense/seed2"]
    [failed] = comparison.of("failed")
    assert failed.error == "it diverged [at step 3]" and comparison.seconds == 10 * 60


def test_nothing_is_there_yet(tmp_path, runs):
    empty = collect(Runs(runs.plan, tmp_path / "empty"))
    reports.write_comparison(empty, tmp_path)
    assert "0 of 12 runs are done." in printed(empty)


def printed(comparison: Comparison) -> str:
    text = StringIO()
    reports.print_comparison(comparison, Console(file=text, width=90))
    return text.getvalue()


def test_table(runs):
    lines = printed(collect(runs)).splitlines()
    assert any(
        re.search(r"platon +80 % +2 +82\.0 ± 2\.8 +\+7\.0 \[-31\.1, 45\.1\] +\*", line)
        for line in lines
    )
    assert any(re.search(r"platon +90 % +1 +60\.0 +-15\.0 *$", line) for line in lines)
    assert any(re.search(r"start +2 +91\.0 ± 1\.4", line) for line in lines)
    assert any("seed2 failed: it diverged [at step 3]" in line for line in lines)


def test_page_and_file(runs, tmp_path):
    comparison = collect(runs)
    reports.write_comparison(comparison, tmp_path)
    kept = Comparison.model_validate_json((tmp_path / "compare.json").read_text())
    assert kept == comparison
    page = (tmp_path / "compare.html").read_text()
    assert "82.0 ± 2.8" in page and "Pareto front" in page and "it diverged [at step 3]" in page
    assert 'href="runs/words/platon/0.8/seed1/report.html"' in page
    assert not re.search(r'(src|href)="(?!runs/|#)', page) and "<script" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("share", "text"), [(0.8, "80 %"), (0.8999, "90 %"), (0.875, "87.5 %")])
def test_sparsity(share, text):
    assert sparsity(share) == text


def test_difference():
    assert difference(0.0123, 0.001, 0.0241) == "+1.2 [0.1, 2.4]"
    assert difference(-0.05, None, None) == "-5.0"
