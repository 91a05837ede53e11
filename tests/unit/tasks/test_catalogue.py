import pytest

from sentei.tasks import catalogue as tasks
from sentei.tasks import metrics
from sentei.tasks.kinds import KINDS

GLUE = [task for task in tasks.TASKS.values() if task.kind == "classification"]


def test_glue_is_complete_and_measured_as_on_its_leaderboard():
    assert {task.name: task.metrics for task in GLUE} == {
        "cola": ("matthews",),
        "sst2": ("accuracy",),
        "mrpc": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
        "qqp": ("accuracy", "f1"),
        "mnli": ("accuracy",),
        "mnli_mismatched": ("accuracy",),
        "qnli": ("accuracy",),
        "rte": ("accuracy",),
        "wnli": ("accuracy",),
    }


@pytest.mark.parametrize("task", GLUE, ids=lambda task: task.name)
def test_glue_is_consistent(task):
    assert set(task.metrics) <= set(metrics.METRICS)
    assert (task.problem == "regression") == (task.name == "stsb")
    assert task.hub.path == "nyu-mll/glue"
    assert task.hub.config == task.name.removesuffix("_mismatched")
    assert ("pair_column" not in task.columns) == (task.name in ("cola", "sst2"))


@pytest.mark.parametrize("task", tasks.TASKS.values(), ids=lambda task: task.name)
def test_every_task_fits_its_kind(task):
    kind = KINDS[task.kind]
    assert task.metric == task.metrics[0] and task.metric in kind.metric_names
    assert set(task.columns) <= set(kind.columns)
    assert tasks.find(task.name.upper().replace("_", "-")) is task


def test_mnli_is_evaluated_on_either_part():
    assert tasks.find("mnli").hub.eval_split == "validation_matched"
    assert tasks.find("mnli-mismatched").hub.eval_split == "validation_mismatched"


def test_default_metrics_exist():
    for names in tasks.DEFAULT_METRICS.values():
        assert set(names) <= set(metrics.METRICS)


@pytest.mark.parametrize("name", ["sst2", "SST-2", "sst_2"])
def test_find_overlooks_case_and_hyphens(name):
    assert tasks.find(name).name == "sst2"


def test_find_names_the_nearest_and_all():
    with pytest.raises(ValueError, match=r"no task 'mprc'; did you mean 'mrpc'\? .*cola, sst2"):
        tasks.find("mprc")
    with pytest.raises(ValueError, match=r"no task 'poems'\..*--train"):
        tasks.find("poems")
