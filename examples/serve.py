"""Serve a pruned model over HTTP: requests that come together run together.

python examples/serve.py --model runs/first
curl localhost:8000/predict -d '{"texts": ["a text", "another"]}'

A model that classifies texts answers /predict, a bare encoder /embed; /health and /metrics (for
Prometheus) are there for both. Needs `pip install '.[runtime,serve]'`. With `--engine onnxruntime`
the same server runs the model densely, for comparison; that needs the extra ``bench`` too.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from starlette.exceptions import HTTPException as HTTPError
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from sentei import runtime
from sentei.messages import counted, explain
from sentei.models.inputs import positions
from sentei.models.loading import load_pretrained, load_tokenizer, locate_model
from sentei.models.pooling import read_pooling
from sentei.models.quiet import quiet_transformers

Tokens = dict[str, list[int]]
"""One text, as the tokenizer gives it."""

Answer = dict[str, Any] | list[float]
"""Labels with their scores, or a vector."""

Run = Callable[[dict[str, Tensor]], Tensor]
"""A model's inputs to its logits, or to its last hidden state if it has no head."""


@dataclass(frozen=True)
class Model:
    """A model on an engine; ``rows`` texts of like length go through it at a time."""

    engine: str
    path: str
    run: Run
    finish: Callable[[Tensor, Tensor], list[Answer]]
    tokenizer: Any
    longest: int
    rows: int = 1 << 30

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Each text by itself, whole, however long."""
        encoded = self.tokenizer(texts, verbose=False)
        return [{name: encoded[name][i] for name in encoded} for i in range(len(texts))]

    def answers(self, texts: Sequence[Tokens]) -> list[Answer]:
        """The answer to each text of a batch."""
        found: list[Answer] = [{}] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]["input_ids"]))
        for start in range(0, len(order), self.rows):
            some = order[start : start + self.rows]
            inputs = dict(self.tokenizer.pad([texts[i] for i in some], return_tensors="pt"))
            with torch.inference_mode():
                answers = self.finish(self.run(inputs).float(), inputs["attention_mask"])
            for i, answer in zip(some, answers, strict=True):
                found[i] = answer
        return found


def open_model(folder: str, engine: str, precision: str, threads: int) -> Model:
    """Load a model into an engine.

    Raises:
        ValueError: There is none, or the engine cannot run it.
    """
    quiet_transformers()
    torch.set_num_threads(threads)
    inside, _ = locate_model(folder)
    config, tokenizer = AutoConfig.from_pretrained(inside), load_tokenizer(inside)
    classifies = any("SequenceClassification" in name for name in config.architectures or ())
    if engine == "sentei":
        compiled = runtime.compile(folder, precision, threads)
        name, longest, rows = f"sentei {compiled.precision}", compiled.longest, 1 << 30
        run: Run = lambda inputs: compiled(**inputs)[0]  # noqa: E731
    else:
        rows = 16  # it computes padding
        name, run, longest = on_onnxruntime(inside, tokenizer, precision, threads, classifies)
    longest = min(longest, tokenizer.model_max_length)
    if classifies:
        return Model(name, "/predict", run, labelling(config), tokenizer, longest, rows)
    pooling = read_pooling(Path(inside))
    if pooling.lower or pooling.prompt:
        raise ValueError(f"{folder}: its texts are prepared in a way that this server lacks")
    longest = min(longest, pooling.longest or longest)
    finish = lambda hidden, mask: pooling(hidden, mask).tolist()  # noqa: E731
    return Model(name, "/embed", run, finish, tokenizer, longest, rows)


def on_onnxruntime(
    inside: str, tokenizer: Any, precision: str, threads: int, classifies: bool
) -> tuple[str, Run, int]:
    """The same model, exported and dense: the engine's name, the engine, and the longest text."""
    from sentei.runtime.bench.choice import Engine
    from sentei.runtime.bench.contender import Model as Source
    from sentei.runtime.bench.with_onnxruntime import open_onnxruntime

    kind = AutoModelForSequenceClassification if classifies else AutoModel
    module, _ = load_pretrained(inside, kind, dtype=torch.float32)
    sample = tokenizer(["a text", "and a longer one"], padding=True, return_tensors="pt")
    engine = Engine("onnxruntime", "int8" if precision == "auto" else precision)
    with tempfile.TemporaryDirectory() as files:  # a session reads its file once
        source = Source(module.eval(), None, dict(sample), (), threads, Path(files))
        session, first = open_onnxruntime(source, engine), source.outputs[0]
    return str(engine), lambda inputs: session.run(inputs)[first], positions(module) or 1 << 30


def labelling(config: Any) -> Callable[[Tensor, Tensor], list[Answer]]:
    """The best label of one of several classes, all that apply of many, or a number."""
    names, kind = config.id2label, config.problem_type

    def finish(logits: Tensor, mask: Tensor) -> list[Answer]:
        if kind == "regression" or (kind is None and logits.shape[1] == 1):
            return [{"scores": row} for row in logits.tolist()]
        if kind == "multi_label_classification":
            rows = logits.sigmoid().tolist()
            return [{"scores": {names[i]: s for i, s in enumerate(row)}} for row in rows]
        scores, best = logits.softmax(-1).max(-1)
        pairs = zip(best.tolist(), scores.tolist(), strict=True)
        return [{"label": names[label], "score": score} for label, score in pairs]

    return finish


@dataclass(frozen=True)
class Limits:
    """What a batch holds, how long it waits to fill, and what is refused."""

    texts: int = 64
    tokens: int = 8192
    wait: float = 0.003
    queue: int = 4096
    size: int = 1 << 20


class Metrics:
    """What /metrics tells, with the process's own time and memory."""

    def __init__(self, queued: Callable[[], float]) -> None:
        self.registry = one = CollectorRegistry()
        ProcessCollector(registry=one)
        self.requests = Counter("requests", "Requests", ["path", "status"], registry=one)
        self.texts = Counter("texts", "Texts that were answered", registry=one)
        self.tokens = Counter("tokens", "Tokens of these texts", registry=one)
        self.batches = Counter("batches", "Batches that the engine ran", registry=one)
        self.seconds = Histogram("request_seconds", "From request to answer", registry=one)
        waiting = Gauge("queued_texts", "Texts that wait for the engine", registry=one)
        waiting.set_function(queued)


@dataclass(eq=False)
class Job:
    """The texts of one request, which run in one batch."""

    texts: list[Tokens]
    answer: asyncio.Future[list[Answer]]
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tokens = sum(len(text["input_ids"]) for text in self.texts)


class Batcher:
    """Requests wait here; one thread takes what has come together and runs it as a batch."""

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.metrics = Metrics(lambda: self.queued)
        self.queued = self._tokens = 0
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begin; inside the event loop that gets the answers."""
        self._loop = asyncio.get_running_loop()
        self.thread.start()

    async def ask(self, texts: list[Tokens]) -> list[Answer]:
        """The answers to a request's texts.

        Raises:
            HTTPException: Too many others wait.
        """
        job = Job(texts, self._loop.create_future())
        with self._changed:
            if self._closed or self.queued + len(texts) > self.limits.queue:
                raise HTTPException(503, f"{counted(self.queued, 'text')} wait already: try later")
            self._jobs.append(job)
            self._count(job, 1)
            self._changed.notify()
        return await job.answer

    def close(self) -> None:
        """Answer those who wait, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self.thread.join()

    def _count(self, job: Job, sign: int) -> None:
        self.queued += sign * len(job.texts)
        self._tokens += sign * job.tokens

    def _next(self) -> list[Job]:
        """The jobs of the next batch; none once it is closed and all are answered."""
        limits, batch, room = self.limits, [], [self.limits.texts, self.limits.tokens]
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if self._jobs:
                left = self._jobs[0].since + limits.wait - time.monotonic()
                self._changed.wait_for(self._enough, max(0.0, left))
            while self._jobs:
                job = self._jobs[0]
                room = [room[0] - len(job.texts), room[1] - job.tokens]
                if min(room) < 0:
                    break
                batch.append(self._jobs.popleft())
                self._count(job, -1)
        return batch

    def _enough(self) -> bool:
        full = self.queued >= self.limits.texts or self._tokens >= self.limits.tokens
        return full or self._closed

    def _work(self) -> None:
        while batch := self._next():
            texts = [text for job in batch for text in job.texts]
            outcome: list[Answer] | Exception
            try:
                outcome = self.model.answers(texts)
            except Exception as error:  # is told to those who asked; others are served on
                outcome = error
            self.metrics.batches.inc()
            self.metrics.texts.inc(len(texts))
            self.metrics.tokens.inc(sum(job.tokens for job in batch))
            self._loop.call_soon_threadsafe(hand_out, batch, outcome)


def hand_out(batch: list[Job], outcome: list[Answer] | Exception) -> None:
    """Give each request its answers."""
    start = 0
    for job in batch:
        end = start + len(job.texts)
        if job.answer.done():  # who asked has gone
            pass
        elif isinstance(outcome, Exception):
            job.answer.set_exception(HTTPException(500, f"the engine failed: {outcome}"))
        else:
            job.answer.set_result(outcome[start:end])
        start = end


class Question(BaseModel):
    """What is asked: texts, or one."""

    model_config = ConfigDict(extra="forbid")
    texts: list[str]

    @field_validator("texts", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


async def read(request: Request, model: Model, limits: Limits) -> list[Tokens]:
    """The texts of a request, as tokens.

    Raises:
        HTTPException: They are none that can be answered.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.size:
            raise HTTPException(413, f"the request has over {limits.size:,} bytes: send less")
    try:
        texts = Question.model_validate_json(body).texts
    except ValidationError as error:
        raise HTTPException(422, f'send {{"texts": ["..."]}}: {explain(error)}') from None
    if not texts or not all(text.strip() for text in texts):
        raise HTTPException(422, "there is no text, or one of them is empty")
    if len(texts) > limits.texts:
        raise HTTPException(413, f"{len(texts)} texts: send at most {limits.texts} at a time")
    tokens = model.tokens(texts)
    lengths = [len(one["input_ids"]) for one in tokens]
    if max(lengths) > model.longest:
        where = lengths.index(max(lengths))
        raise HTTPException(
            413, f"texts[{where}] has {max(lengths)} tokens: the model reads {model.longest}"
        )
    if sum(lengths) > limits.tokens:
        raise HTTPException(413, f"{sum(lengths)} tokens: send at most {limits.tokens} at a time")
    return tokens


def make_app(model: Model, limits: Limits) -> FastAPI:
    """The server's application."""
    batcher = Batcher(model, limits)
    metrics = batcher.metrics
    schema = {"application/json": {"schema": Question.model_json_schema()}}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield  # ends when no request is open
        await asyncio.to_thread(batcher.close)

    app = FastAPI(title="Sentei", lifespan=lifespan)

    @app.post(model.path, openapi_extra={"requestBody": {"content": schema}})
    async def answer(request: Request) -> Response:
        began, status = time.perf_counter(), 500
        try:
            results = await batcher.ask(await read(request, model, limits))
            status = 200
            return JSONResponse({"results": results})
        except HTTPException as error:
            status = error.status_code
            headers = {"Retry-After": "1"} if status == 503 else None
            return JSONResponse({"error": error.detail}, status, headers)
        finally:
            metrics.seconds.observe(time.perf_counter() - began)
            metrics.requests.labels(model.path, status).inc()

    @app.get("/health")
    async def health() -> Response:
        facts = {"engine": model.engine, "path": model.path, "queued": batcher.queued}
        return JSONResponse(facts, 200 if batcher.thread.is_alive() else 503)

    @app.get("/metrics")
    async def tell() -> Response:
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    @app.exception_handler(HTTPError)
    async def other(request: Request, error: HTTPError) -> Response:
        sentence = f"{request.method} {request.url.path}: this model answers POST {model.path}"
        return JSONResponse({"error": sentence}, error.status_code)

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a run's folder, or a model's")
    parser.add_argument("--engine", choices=("sentei", "onnxruntime"), default="sentei")
    parser.add_argument("--precision", default="auto", help="fp32, bf16, int8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free")
    parser.add_argument("--texts", type=int, default=Limits.texts, help="of a batch or request")
    parser.add_argument("--tokens", type=int, default=Limits.tokens, help="of a batch or request")
    parser.add_argument("--wait", type=float, default=3, help="milliseconds, for others to come")
    parser.add_argument("--queue", type=int, default=Limits.queue, help="texts; beyond it, 503")
    options = parser.parse_args()
    try:
        model = open_model(options.model, options.engine, options.precision, options.threads)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    limits = Limits(options.texts, options.tokens, options.wait / 1000, options.queue)
    settings: dict[str, Any] = {"access_log": False, "log_level": "warning", "backlog": 4096}
    app = make_app(model, limits)
    config = uvicorn.Config(app, host=options.host, port=options.port, **settings)
    socket = config.bind_socket()
    socket.listen(config.backlog)  # connections may come from now on
    where = "http://{}:{}".format(*socket.getsockname())
    print(f"{model.engine} answers {where}{model.path}", flush=True)
    uvicorn.Server(config).run(sockets=[socket])


if __name__ == "__main__":
    main()
