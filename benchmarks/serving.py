"""A server under load: examples/serve.py on Sentei's engine, and on ONNX Runtime.

Each engine has a server, a process on the loopback; the load goes to one after the other, round by
round. All clients are connected before the first of them asks; each asks again as soon as it is
answered. Texts are real ones, with the lengths that they have. Every answer is compared with what
the same engine says of that text alone; it ``differs`` where it is another's, or where an engine
rounds a text otherwise beside others, as ONNX Runtime's dynamic int8 does, which has one scale for
a whole batch. Needs the extras ``serve``, ``runtime`` and ``bench``.

python -m benchmarks.serving --model runs/sst2 --texts dev.tsv --clients 1000 4000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import importlib.util
import json
import math
import re
import resource
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine

EXAMPLE = Path(__file__).parents[1] / "examples" / "serve.py"
ENGINES = ("sentei:int8", "onnxruntime:fp32", "onnxruntime:int8")
TOLERANCE = 0.05
"""Of a score, or of one less the cosine of vectors."""

OUTCOMES = ("right", "differs", "refused", "failed", "lost")

PATIENCE = 300.0
"""Seconds after which an answer counts as lost."""


@dataclass(frozen=True)
class Texts:
    """What is asked: the bodies of requests, and an engine's own answers to their texts."""

    bodies: list[bytes]
    own: list[list[Any]]


@dataclass
class Load:
    """What became of the requests of one load."""

    clients: int
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    texts: int = 0
    batches: float = 0.0
    processor: float = 0.0


# ------------------------------------------------------------------------------------- the texts


def read(file: Path, column: str | None) -> list[str]:
    """Different texts: a column of a file with a header, or else the lines."""
    with file.open(encoding="utf-8", newline="") as lines:
        if file.suffix in (".tsv", ".csv"):
            if file.suffix == ".tsv":
                rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            else:
                rows = csv.DictReader(lines)
            found = [row[column or next(iter(row))] for row in rows]
        else:
            found = [line.strip() for line in lines]
    return list(dict.fromkeys(text for text in found if text.strip()))


def prepare(texts: list[str], each: int, model: Any) -> Texts:
    """Requests of so many texts each, and the engine's answer to each text by itself."""
    tokens = model.tokens(texts)
    kept = [i for i, one in enumerate(tokens) if len(one["input_ids"]) <= model.longest]
    own = {i: model.answers([tokens[i]])[0] for i in kept}
    parts = [kept[start : start + each] for start in range(0, len(kept), each)]
    bodies = [json.dumps({"texts": [texts[i] for i in part]}).encode() for part in parts]
    return Texts(bodies, [[own[i] for i in part] for part in parts])


def same(answer: Any, own: Any) -> bool:
    """Whether an answer is the one that belongs to the text."""
    if isinstance(own, list):
        one, other = np.array(answer), np.array(own)
        return float(one @ other) > (1 - TOLERANCE) * math.sqrt(one @ one * (other @ other))
    if answer.get("label") != own.get("label"):  # then both must be next to even
        return bool(max(answer["score"], own["score"]) < 0.5 + TOLERANCE)
    return bool(abs(answer["score"] - own["score"]) <= TOLERANCE)


# ------------------------------------------------------------------------------------ the server


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    name: str
    port: int
    path: str

    def metrics(self) -> dict[str, float]:
        """What it says of itself."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        values = (line.split() for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in values}


@contextlib.contextmanager
def served(model: str, engine: str, threads: int, queue: int) -> Iterator[Server]:
    """A server's process, until the end of the block."""
    name, _, precision = engine.partition(":")
    options = {
        "--model": model,
        "--engine": name,
        "--precision": precision or "auto",
        "--threads": threads,
        "--queue": queue,
        "--port": 0,
    }
    command = [
        sys.executable,
        str(EXAMPLE),
        *(str(word) for pair in options.items() for word in pair),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"(.+) answers http://.+:(\d+)(/\w+)$", line)
        if found is None:
            raise SystemExit(f"{engine}: the server did not start; see above")
        yield Server(found[1], int(found[2]), found[3])
    finally:
        process.terminate()
        process.wait()


# -------------------------------------------------------------------------------------- the load


class _Connection:
    """One client's connection, opened again after a failure."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.head = f"POST {server.path} HTTP/1.1\r\nHost: loopback\r\nContent-Length: "

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.server.port)

    async def ask(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self.writer.write(f"{self.head}{len(body)}\r\n\r\n".encode() + body)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None
        return int(head.split(b" ", 2)[1]), await self.reader.readexactly(int(length[1]))


async def run(server: Server, texts: Texts, clients: int, requests: int) -> Load:
    """Ask so many times in all, by so many clients at a time."""
    load = Load(clients)
    numbers = iter(range(requests))
    together = asyncio.Barrier(clients + 1)

    async def client() -> None:
        connection = _Connection(server)
        await connection.open()
        await together.wait()
        for number in numbers:
            which = number % len(texts.bodies)
            began = time.perf_counter()
            try:
                status, body = await asyncio.wait_for(connection.ask(texts.bodies[which]), PATIENCE)
            except (OSError, EOFError, TimeoutError):
                load.outcomes["lost"] += 1
                await connection.open()
                continue
            load.latencies.append(time.perf_counter() - began)
            load.outcomes[_outcome(status, body, texts.own[which])] += 1
            load.texts += len(texts.own[which]) * (status == 200)

    asking = [asyncio.create_task(client()) for _ in range(clients)]
    await together.wait()
    began = time.perf_counter()
    await asyncio.gather(*asking)
    load.seconds = time.perf_counter() - began
    return load


def _outcome(status: int, body: bytes, own: list[Any]) -> str:
    if status == 503:
        return "refused"
    if status != 200:
        return "failed"
    answers = json.loads(body)["results"]
    right = len(answers) == len(own) and all(map(same, answers, own))
    return "right" if right else "differs"


def measured(server: Server, texts: Texts, clients: int, requests: int) -> Load:
    """A load, with what it took the server."""
    before = server.metrics()
    load = asyncio.run(run(server, texts, clients, requests))
    after = server.metrics()
    assert sum(load.outcomes.values()) == requests
    load.processor = after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
    load.batches = after["batches_total"] - before["batches_total"]
    return load


# ------------------------------------------------------------------------------------- the table


def record(name: str, loads: list[Load]) -> dict[str, Any]:
    """All rounds of an engine with so many clients: sums, medians, percentiles over all."""
    texts = sum(load.texts for load in loads)
    latencies = [1e3 * one for load in loads for one in load.latencies] or [math.nan]
    return {
        "engine": name,
        "clients": loads[0].clients,
        "requests": sum(sum(load.outcomes.values()) for load in loads),
        "outcomes": dict(sum((load.outcomes for load in loads), Counter())),
        "texts_per_second": statistics.median(load.texts / load.seconds for load in loads),
        "milliseconds": dict(
            zip(("50", "95", "99"), np.percentile(latencies, (50, 95, 99)).tolist(), strict=True)
        ),
        "processor_per_text": 1e3 * sum(load.processor for load in loads) / max(1, texts),
        "texts_per_batch": texts / max(1, sum(load.batches for load in loads)),
    }


def table(records: list[dict[str, Any]]) -> str:
    lines = [
        "| engine | clients | requests | right | differs | refused | failed | lost | texts/s "
        "| 50 % ms | 95 % ms | 99 % ms | CPU ms a text | texts a batch |",
        "|---" * 14 + "|",
    ]
    for one in records:
        outcomes = (one["outcomes"].get(o, 0) for o in OUTCOMES)
        counts = " | ".join(f"{count:,}" for count in (one["clients"], one["requests"], *outcomes))
        times = " | ".join(f"{value:.0f}" for value in one["milliseconds"].values())
        lines.append(
            f"| {one['engine']} | {counts} | {one['texts_per_second']:,.0f} | {times} "
            f"| {one['processor_per_text']:.2f} | {one['texts_per_batch']:.1f} |"
        )
    return "\n".join(lines)


def load_example() -> Any:
    """The example as a module: what serves is also what tells the right answers."""
    spec = importlib.util.spec_from_file_location("serve_example", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every engine with every number of clients, in turns."""
    example, texts = load_example(), read(options.texts, options.column)[: options.different]
    loads: dict[tuple[str, int], list[Load]] = {}
    queue = max(options.clients) * options.each
    with contextlib.ExitStack() as stack:
        servers = []
        for engine in options.engine:
            name, _, precision = engine.partition(":")
            model = example.open_model(options.model, name, precision or "auto", options.threads)
            asked = prepare(texts, options.each, model)
            del model
            start = served(options.model, engine, options.threads, queue)
            servers.append((stack.enter_context(start), asked))
        for number in range(options.rounds):
            for clients in options.clients:
                for server, asked in servers:
                    load = measured(server, asked, clients, options.requests or 5 * clients)
                    loads.setdefault((server.name, clients), []).append(load)
                    rate = load.texts / load.seconds
                    print(f"round {number + 1}: {server.name}, {clients} clients: {rate:,.0f} "
                          f"texts/s, {dict(load.outcomes)}", file=sys.stderr)  # fmt: skip
    return [record(name, some) for (name, _), some in loads.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", type=Path, required=True, help=".tsv, .csv, or one a line")
    parser.add_argument("--column", help="of the texts; the first unless named")
    parser.add_argument("--different", type=int, help="texts that are used, at most")
    parser.add_argument("--engine", nargs="+", default=ENGINES, help="NAME:PRECISION")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clients", type=int, nargs="+", default=[1000])
    parser.add_argument("--requests", type=int, help="of a load; 5 a client unless given")
    parser.add_argument("--each", type=int, default=1, help="texts of a request")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the servers' too
    records = compare(options)
    about = f"{options.each} texts a request, {options.threads} threads, {options.rounds} rounds"
    machine.write("serving", f"{about}.\n\n{table(records)}", {"records": records})


if __name__ == "__main__":
    main()
