"""The example that serves a model: what is asked is answered, by the right answer, or refused."""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from benchmarks import serving
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer

from sentei import runtime

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve.py"
WORDS = [f"w{number}" for number in range(40)]
SECONDS = 60


@pytest.fixture(scope="module")
def serve():
    spec = importlib.util.spec_from_file_location("serve_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def make_tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A classifier and a bare encoder."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": 5 + len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 32,
        "initializer_range": 0.5,
    }
    found = {}
    for kind, labels in ((BertForSequenceClassification, 3), (BertModel, 2)):
        folder = tmp_path_factory.mktemp(kind.__name__)
        kind(BertConfig(**shape, num_labels=labels)).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        found[kind] = folder
    return found


class Client:
    """One connection for each question."""

    def __init__(self, port):
        self.port = port

    def send(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ask(self, texts, path="/predict"):
        status, body = self.send("POST", path, json.dumps({"texts": texts}))
        return status, json.loads(body)

    def metric(self, name):
        lines = self.send("GET", "/metrics")[1].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@contextmanager
def served(serve, model, **limits):
    """The server in a thread, and what stops it."""
    app = serve.make_app(model, serve.Limits(**limits))
    config = uvicorn.Config(app, port=0, log_level="warning", access_log=False)
    server, socket = uvicorn.Server(config), config.bind_socket()
    socket.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        yield Client(socket.getsockname()[1]), server
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


class Slow:
    """An engine that holds each batch until it may go on; a text's answer is its first word."""

    def __init__(self):
        self.go, self.begun, self.sizes = threading.Event(), threading.Event(), []

    def __call__(self, inputs):
        self.sizes.append(len(inputs["input_ids"]))
        self.begun.set()
        assert self.go.wait(SECONDS)
        if (inputs["input_ids"] == 5 + 39).any():
            raise RuntimeError("w39 is too much")
        return inputs["input_ids"][:, 1:2].float()

    def model(self, serve):
        finish = lambda values, mask: [{"score": one} for one in values[:, 0].tolist()]  # noqa: E731
        return serve.Model("slow", "/predict", self, finish, make_tokenizer(), 32)


# ------------------------------------------------------------------------------------- the engine


def test_many_requests_at_once_each_get_their_own_answer(folders):
    folder = folders[BertForSequenceClassification]
    texts = [" ".join(WORDS[i % 40 : i % 40 + 1 + i % 7]) for i in range(40)]
    options = ["--model", str(folder), "--precision", "fp32", "--port", "0"]
    command = [sys.executable, str(EXAMPLE), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("sentei fp32 answers http://127.0.0.1:"), process.stderr.read()
        client = Client(int(line.rpartition(":")[2].partition("/")[0]))
        with ThreadPoolExecutor(40) as pool:
            found = list(pool.map(lambda i: client.ask([texts[i % 40], texts[i // 5]]), range(200)))
        assert client.metric("texts_total") == 400
        assert client.metric("batches_total") < 150
        assert client.metric("request_seconds_count") == 200
    finally:
        process.terminate()
        error = process.communicate(timeout=SECONDS)[1]
    assert error == ""
    with runtime.compile(folder, "fp32") as engine:
        own = [engine.predict([text])[0] for text in texts]
    for i, (status, answer) in enumerate(found):
        assert status == 200
        for one, j in zip(answer["results"], (i % 40, i // 5), strict=True):
            assert one["label"] == own[j]["label"]
            assert one["score"] == pytest.approx(own[j]["score"], abs=1e-5)


def test_a_bare_encoder_gives_vectors(serve, folders):
    folder = folders[BertModel]
    model = serve.open_model(str(folder), "sentei", "fp32", 1)
    with served(serve, model) as (client, _):
        status, answer = client.ask(["w1 w2 w3", "w4"], "/embed")
        assert client.ask(["w1"])[0] == 404
    with runtime.compile(folder, "fp32") as engine:
        own = engine.embed(["w1 w2 w3", "w4"])
    assert status == 200
    assert torch.tensor(answer["results"]).numpy() == pytest.approx(own, abs=1e-5)


def test_the_load_test_counts_every_answer(folders, tmp_path):
    texts = tmp_path / "texts.tsv"
    rows = [" ".join(WORDS[i : i + 4]) for i in range(30)] + [" ".join(WORDS)]
    texts.write_text("\n".join(["label\tsentence", *(f"1\t{row}" for row in rows)]), "utf-8")
    options = argparse.Namespace(
        model=str(folders[BertForSequenceClassification]),
        texts=texts,
        column="sentence",
        different=None,
        engine=["sentei:fp32"],
        threads=1,
        clients=[20],
        requests=100,
        each=2,
        rounds=2,
    )
    [line] = serving.compare(options)
    assert line["outcomes"] == {"right": 200}
    assert line["texts_per_batch"] > 2
    assert "| sentei fp32 | 20 | 200 | 200 | 0 | 0 | 0 | 0 |" in serving.table([line])


@pytest.mark.parametrize(
    ("answer", "own", "same"),
    [
        ({"label": "a", "score": 0.9}, {"label": "a", "score": 0.91}, True),
        ({"label": "a", "score": 0.7}, {"label": "a", "score": 0.9}, False),
        ({"label": "b", "score": 0.9}, {"label": "a", "score": 0.9}, False),
        ({"label": "b", "score": 0.51}, {"label": "a", "score": 0.52}, True),
        ([1.0, 0.0], [1.0, 0.1], True),
        ([1.0, 0.0], [0.0, 1.0], False),
    ],
)
def test_the_load_test_knows_anothers_answer(answer, own, same):
    assert serving.same(answer, own) == same


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ('{"texts": []}', 422, "there is no text, or one of them is empty"),
        ('{"texts": ["w1", " "]}', 422, "there is no text, or one of them is empty"),
        ('{"texts": [1]}', 422, 'send {"texts": ["..."]}: texts.0=1: should be a valid string'),
        ('{"text": "w1"}', 422, 'send {"texts": ["..."]}: texts is missing; unknown setting text'),
        ('{"texts"', 422, 'send {"texts": ["..."]}: Invalid JSON'),
        ('{"texts": ["\\ud800"]}', 422, 'send {"texts": ["..."]}: Invalid JSON'),
        (json.dumps({"texts": ["w1"] * 9}), 413, "9 texts: send at most 8 at a time"),
        (
            json.dumps({"texts": ["w2", "w1 " * 31]}),
            413,
            "texts[1] has 33 tokens: the model reads 32",
        ),
        (json.dumps({"texts": ["w1 " * 28] * 4}), 413, "120 tokens: send at most 100 at a time"),
        (json.dumps({"texts": "w" * 5000}), 413, "the request has over 4,000 bytes: send less"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_sentence(serve, body, status, sentence):
    slow = Slow()
    with served(serve, slow.model(serve), texts=8, tokens=100, size=4000) as (client, _):
        found, answer = client.send("POST", "/predict", body)
        assert found == status
        assert json.loads(answer)["error"].startswith(sentence)
        assert client.metric(f'requests_total{{path="/predict",status="{status}"}}') == 1
    assert slow.sizes == []


def test_other_paths_and_methods_are_told_the_right_one(serve):
    with served(serve, Slow().model(serve)) as (client, _):
        for method, path, status in (("GET", "/predict", 405), ("POST", "/", 404)):
            found, answer = client.send(method, path)
            assert found == status
            assert json.loads(answer)["error"].endswith("this model answers POST /predict")
        assert client.send("GET", "/health")[0] == 200


# ----------------------------------------------------------------------------------------- queue


def test_who_comes_while_the_engine_is_busy_runs_together_and_a_full_queue_says_so(serve):
    slow = Slow()
    with (
        served(serve, slow.model(serve), texts=4, queue=6, wait=0) as (client, _),
        ThreadPoolExecutor(8) as pool,
    ):
        first = pool.submit(client.ask, "w0")
        assert slow.begun.wait(SECONDS)
        rest = [pool.submit(client.ask, [f"w{i}", f"w{i + 1}"]) for i in (1, 3, 5)]
        while client.metric("queued_texts") < 6:
            pass
        status, answer = client.ask("w7")
        assert (status, answer["error"]) == (503, "6 texts wait already: try later")
        slow.go.set()
        assert first.result() == (200, {"results": [{"score": 5.0}]})
        for i, one in zip((1, 3, 5), rest, strict=True):
            assert one.result() == (200, {"results": [{"score": 5.0 + i}, {"score": 6.0 + i}]})
    assert slow.sizes == [1, 4, 2]


def test_a_batch_waits_a_little_for_others(serve):
    slow = Slow()
    slow.go.set()
    with (
        served(serve, slow.model(serve), texts=5, wait=SECONDS) as (client, _),
        ThreadPoolExecutor(5) as pool,
    ):
        found = list(pool.map(client.ask, WORDS[:5]))
    assert [answer["results"][0]["score"] for _, answer in found] == [5, 6, 7, 8, 9]
    assert slow.sizes == [5]


def test_a_failure_of_the_engine_is_told_and_the_next_request_is_answered(serve):
    slow = Slow()
    slow.go.set()
    with served(serve, slow.model(serve)) as (client, _):
        assert client.ask("w39") == (500, {"error": "the engine failed: w39 is too much"})
        assert client.ask("w1") == (200, {"results": [{"score": 6.0}]})


def test_requests_that_are_open_when_the_server_stops_are_answered(serve):
    slow = Slow()
    with (
        ThreadPoolExecutor(4) as pool,
        served(serve, slow.model(serve), texts=2, wait=0) as (client, server),
    ):
        rest = [pool.submit(client.ask, f"w{i}") for i in range(4)]
        assert slow.begun.wait(SECONDS)
        while client.metric("queued_texts") + slow.sizes[0] < 4:
            pass
        server.should_exit = True
        slow.go.set()
        for i, one in enumerate(rest):
            assert one.result() == (200, {"results": [{"score": 5.0 + i}]})
