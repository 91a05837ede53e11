import pytest

from sentei.tasks import catalogue, metrics
from sentei.tasks.kinds import known as known_kinds

GLUE = [
    known
    for known in catalogue.DATASETS.values()
    if known.kind == "classification" and known.name != "demo"
]


def test_glue_is_complete_and_measured_as_on_its_leaderboard():
    assert {known.name: known.metrics for known in GLUE} == {
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


@pytest.mark.parametrize("known", GLUE, ids=lambda known: known.name)
def test_glue_is_consistent(known):
    assert set(known.metrics) <= set(metrics.METRICS)
    assert known.options["regression"] == (known.name == "stsb")
    assert known.hub.path == "nyu-mll/glue"
    assert known.hub.config == known.name.removesuffix("_mismatched")
    assert (known.options["pair_column"] is None) == (known.name in ("cola", "sst2"))


@pytest.mark.parametrize("known", catalogue.DATASETS.values(), ids=lambda known: known.name)
def test_every_dataset_fits_its_task(known):
    task = known_kinds()[known.kind](dataset=known.name)
    assert known.metrics == task.metric_names and known.metrics[0] in task.metric_choices
    assert set(known.options) <= set(type(task).model_fields)
    assert catalogue.find(known.name.upper().replace("_", "-")) is known


def test_mnli_is_evaluated_on_either_part():
    assert catalogue.find("mnli").hub.eval_split == "validation_matched"
    assert catalogue.find("mnli-mismatched").hub.eval_split == "validation_mismatched"


def test_usual_metrics_exist():
    for task in known_kinds()["classification"](), known_kinds()["classification"](regression=True):
        assert set(task.usual_metrics) <= set(task.metric_choices) <= set(metrics.METRICS)


def test_a_dataset_that_is_not_on_the_hub():
    known = catalogue.KnownDataset(
        name="own", options={"text_column": "text"}, metrics=("accuracy",)
    )
    with pytest.raises(ValueError, match=r"'own' is not on the hub.*--train and --eval"):
        known.load("train")


@pytest.mark.parametrize("name", ["sst2", "SST-2", "sst_2"])
def test_find_overlooks_case_and_hyphens(name):
    assert catalogue.find(name).name == "sst2"


def test_find_names_the_nearest_and_all():
    with pytest.raises(ValueError, match=r"no task 'mprc'; did you mean 'mrpc'\? .*cola, sst2"):
        catalogue.find("mprc")
    with pytest.raises(ValueError, match=r"no task 'poems'\..*--train"):
        catalogue.find("poems")
