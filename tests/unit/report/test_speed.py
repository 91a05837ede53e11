"""What is said of speeds: which engine is the fastest, and whether zeros pay."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from sentei import report as reports
from sentei.records import EngineRecord, SpeedRecord, SpeedReport, WorkloadRecord
from sentei.report.speed import in_short, markdown, rows, words

DENSE = {"torch fp32": 40.0, "onnxruntime fp32": 20.0, "openvino int8": 5.0}


def speeds(times, metrics=None, sparsity=0.9, threads=1, infinite=(), far=()):
    """A report of engines by label, each with milliseconds on every workload."""
    times = {label: t if isinstance(t, tuple) else (t, t) for label, t in times.items()}
    workloads = [
        WorkloadRecord(batch=1, length="128", sequences=1, tokens=128, padded=128),
        WorkloadRecord(batch=8, length="data", sequences=32, tokens=900, padded=1800),
    ]
    metrics = metrics or {}
    made = SpeedReport(
        sentei="0",
        created="today",
        model="bert [tiny]",
        sparsity=sparsity,
        sparsity_all=sparsity / 2,
        threads=threads,
        rounds=5,
        baseline="onnxruntime fp32",
        metric="accuracy" if metrics else None,
        workloads=tuple(workloads),
        engines=tuple(
            EngineRecord(
                engine=label.split()[0],
                precision=label.split()[1],
                metrics={"accuracy": metrics[label]} if label in metrics else {},
            )
            for label in times
        ),
        speeds=tuple(
            SpeedRecord(
                engine=label.split()[0],
                precision=label.split()[1],
                batch=workload.batch,
                length=workload.length,
                clock=2 * t[i],
                low=t[i],
                high=3 * t[i],
                processor=t[i],
                difference=float("inf") if label in infinite else 0.3 if label in far else 0.01,
                most=0.1,
            )
            for label, t in times.items()
            for i, workload in enumerate(workloads)
        ),
        absent=("nobody bf16: not installed: nobody",),
        machine={"cpu": "a CPU"},
    )
    return made.model_copy(update={"words": words(made)})


def test_the_fastest_is_named_with_what_it_is_faster_than():
    [text] = speeds({**DENSE, "sentei int8": 2.0}).words
    assert text == (
        "Fastest throughout: sentei int8, 10 times as fast as onnxruntime fp32 and 2.5 times as "
        "fast as the best dense engine, openvino int8, at batch 8, texts as they come."
    )


def test_where_another_is_the_fastest_it_is_said():
    first, second, third = speeds({**DENSE, "sentei int8": (8.0, 2.0)}).words
    assert first.startswith("Fastest at batch 1, 128 tokens: openvino int8, 4 times")
    assert second.startswith("Fastest at batch 8, texts as they come: sentei int8, 10 times")
    assert third.startswith(
        "At 90.0 % sparsity Sentei's engine is slower than openvino int8 at batch 1, 128 tokens, "
        "0.62 times"
    )


def test_sparsity_that_gives_nothing_is_said():
    report = speeds({**DENSE, "sentei int8": (9.0, 8.0), "sentei fp32": 30.0}, sparsity=0.35)
    assert report.words[-1] == (
        "At 35.0 % sparsity Sentei's engine is slower than openvino int8, 0.56 to 0.62 times "
        "its speed. Sparsity gives no speed here: prune more, prune in blocks of 4x1 or whole "
        "heads and neurons, or use openvino int8."
    )


def test_without_an_engine_for_zeros_they_give_nothing():
    assert "90.0 % of them give no speed" in speeds(DENSE).words[-1]
    assert "zeros" not in " ".join(speeds(DENSE, sparsity=0.0).words)


def test_what_shrinking_gives_is_said_where_it_gives_something():
    shrunk = {**DENSE, "shrunk fp32": 20.0}
    assert "2 times as fast in torch" in " ".join(speeds(shrunk).words)
    assert "idle" not in " ".join(speeds({**DENSE, "shrunk fp32": 40.0}).words)


def test_what_the_fastest_loses_is_said():
    metrics = {"torch fp32": 0.912, "openvino int8": 0.905}
    assert (
        "openvino int8 has accuracy 90.5 %, -0.7 points against torch fp32."
        in speeds(DENSE, metrics).words
    )


def test_outputs_that_are_not_finite_are_said():
    report = speeds(DENSE, infinite=("openvino int8",))
    assert "openvino int8 gives outputs that are not finite." in report.words
    assert SpeedReport.model_validate_json(report.model_dump_json()) == report


def test_outputs_that_are_far_off_are_said_where_no_metric_was_measured():
    report = speeds(DENSE, far=("openvino int8", "torch fp32"))
    assert report.words[-1].startswith("The outputs of openvino int8 differ from torch fp32 by up")
    assert "30.0 %" in report.words[-1] and "torch fp32 differ" not in " ".join(report.words)


def test_one_sentence_has_the_engine_beside_torch():
    metrics = {"torch fp32": 0.912, "sentei int8": 0.905}
    report = speeds({**DENSE, "sentei int8": (9.0, 2.0), "sentei fp32": 4.0}, metrics)
    assert in_short(report) == (
        "Sentei's engine (int8) reads the evaluation texts 20 times as fast as PyTorch (fp32): "
        "2 ms a text on one thread, in batches of 8, instead of 40; accuracy 90.5 % instead of "
        "91.2 %."
    )
    report = speeds({**DENSE, "sentei int8": 2.0}, dict.fromkeys(metrics, 0.9), threads=2)
    assert in_short(report).endswith(
        "on 2 threads, in batches of 8, instead of 80; accuracy 90.0 % with both."
    )


def test_one_sentence_says_why_the_engine_did_not_run():
    report = speeds(DENSE).model_copy(update={"absent": ("sentei auto: not installed: llvmlite",)})
    assert in_short(report) == "Sentei's engine does not run it here: not installed: llvmlite"
    assert in_short(speeds(DENSE)) == speeds(DENSE).words[0]


@pytest.mark.parametrize(("threads", "kind"), [(1, "CPU time"), (2, "the clock")])
def test_one_thread_is_compared_by_the_processor_and_several_by_the_clock(threads, kind):
    report = speeds(DENSE, threads=threads)
    assert report.milliseconds(report.speeds[0]) == (40.0 if threads == 1 else 80.0)
    assert f"by {kind}" in markdown(report)


def test_the_fastest_comes_first():
    report = speeds(DENSE)
    table = rows(report, report.workloads[0])
    assert [row.engine for row in table] == ["openvino int8", "onnxruntime fp32", "torch fp32"]
    assert [row.faster for row in table] == ["4.00x", "1.00x", "0.50x"]


def test_the_console_fits_80_columns_and_reads_no_markup():
    text = StringIO()
    report = speeds({**DENSE, "onnxruntime int8": 8888.8}, {"torch fp32": 0.9})
    reports.print_speed(report, Console(file=text, width=80))
    assert max(map(len, text.getvalue().splitlines())) <= 80
    assert "bert [tiny]" in text.getvalue() and "…" not in text.getvalue()


def test_files_are_written_and_read_again(tmp_path):
    pytest.importorskip("matplotlib")
    report = speeds(DENSE)
    reports.write_speed(report, tmp_path)
    assert reports.read_speed(tmp_path) == report
    page = (tmp_path / "bench.md").read_text()
    assert re.search(r"^\| openvino int8 \| 10 \| 5 \| 4\.00x \|", page, re.M)
    picture = (tmp_path / "bench.svg").read_text()
    assert picture.startswith("<?xml") and "openvino int8" in picture
    assert reports.read_speed(tmp_path / "elsewhere") is None


def test_a_damaged_file_says_how_to_mend_it(tmp_path):
    (tmp_path / "bench.json").write_text('{"sentei": "9"}')
    with pytest.raises(ValueError, match=r"bench\.json: .*measure again with: sentei bench"):
        reports.read_speed(tmp_path)
