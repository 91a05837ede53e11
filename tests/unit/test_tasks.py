import pytest

from sentei.hf import metrics, tasks


def test_glue_is_complete_and_measured_as_on_its_leaderboard():
    assert {name: task.metrics for name, task in tasks.TASKS.items()} == {
        "cola": ("matthews",),
        "sst2": ("accuracy",),
        "mrpc": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
        "qqp": ("accuracy", "f1"),
        "mnli": ("accuracy",),
        "qnli": ("accuracy",),
        "rte": ("accuracy",),
        "wnli": ("accuracy",),
    }


@pytest.mark.parametrize("task", tasks.TASKS.values(), ids=lambda task: task.name)
def test_every_task_is_consistent(task):
    assert set(task.metrics) <= set(metrics.METRICS)
    assert task.metric == task.metrics[0]
    assert (task.problem == "regression") == (task.name == "stsb")
    assert (task.hub.path, task.hub.config) == ("nyu-mll/glue", task.name)
    assert (task.pair_column is None) == (task.name in ("cola", "sst2"))


def test_mnli_is_evaluated_on_the_matched_part():
    assert tasks.find("mnli").hub.eval_split == "validation_matched"


def test_default_metrics_exist():
    for names in tasks.DEFAULT_METRICS.values():
        assert set(names) <= set(metrics.METRICS)


@pytest.mark.parametrize("name", ["sst2", "SST-2", "sst_2"])
def test_find_overlooks_case_and_hyphens(name):
    assert tasks.find(name).name == "sst2"


def test_find_names_the_nearest_and_all():
    with pytest.raises(ValueError, match=r"no task 'mprc'; did you mean 'mrpc'\? .*cola, sst2"):
        tasks.find("mprc")
    with pytest.raises(ValueError, match=r"no task 'squad'\..*--train"):
        tasks.find("squad")
