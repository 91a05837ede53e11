"""Bad files of keys and values: recipes, plans of comparisons."""

from __future__ import annotations

import random
from collections.abc import Iterator

import yaml

from .bad import FILES, INSPECT, SPECIAL, TEXTS, VALUES, Content, attempt, bomb, mutants
from .trial import Trial
from .world import World

RECIPES = "recipes: YAML bombs, depth, tags, mutants"
PLANS = "plans of comparisons"

YAML = {
    "an alias": "a: &a 1\nmethod: *a\n",
    "an alias of itself": "method: &a [*a]\n",
    "a merge": "x: &x {a: 1}\nmethod: {<<: *x}\n",
    "a key twice": "method: platon\nmethod: magnitude\n",
    "a key of lists": "? [a, b]\n: 1\n",
    "a key of mappings": "? {a: 1}\n: 1\n",
    "a key that is null": "null: 1\n~: 2\n",
    "two documents": "method: platon\n---\nmethod: magnitude\n",
    "a set": "!!set {a, b}\n",
    "binary": "method: !!binary aGVsbG8=\n",
    "a date": "method: 2020-01-01\nscore: 2020-01-01T00:00:00Z\n",
    "a bad date": "method: 2020-99-99\n",
    "base 60": "method: 1:30:00\n",
    "a tag of os": "method: !!python/object/apply:os.system ['touch canary']\n",
    "a tag of a name": "method: !!python/name:os.system\n",
    "a tag of a module": "method: !!python/module:subprocess\n",
    "a tag of new": "method: !!python/object/new:os.system ['touch canary']\n",
    "an unknown tag": "method: !x y\n",
    "a directive": "%YAML 9.9\n---\nmethod: platon\n",
    "a tab": "method:\n\tplaton\n",
    "a lone surrogate": 'method: "\\ud800"\n',
    "an escape": 'method: "\\e[31m\\a"\n',
    "bidi": "method: a\u202eb\n",
    "a long key": f"{'k' * 200_000}: 1\n",
    "a long value": f"method: {'v' * 900_000}\n",
    "many keys": "".join(f"k{n}: {n}\n" for n in range(40_000)),
    "a big list": "method: [" + "1," * 200_000 + "1]\n",
    "a huge int": f"method: {'9' * 10_000}\n",
    "a huge hex": f"method: 0x{'f' * 10_000}\n",
    "quotes open": 'method: "platon\n',
    "anchors": "".join(f"k{n}: &a{n} 1\n" for n in range(2_000)),
    "a comment": "# nothing\n",
    "blocks": "method: |\n" + "  x\n" * 50_000,
    "2:4": "pattern: 2:4\n",
}


def _depth(number: int) -> dict[str, bytes]:
    return {
        f"{number} lists deep": b"method: " + b"[" * number + b"]" * number,
        f"{number} mappings deep": b"{a: " * number + b"1" + b"}" * number,
        f"{number} lines deep": "".join(
            f"{' ' * n}a:\n" for n in range(min(number, 1400))
        ).encode(),
        f"{number} items deep": b"- " * number + b"x",
    }


def _files(keys: tuple[str, ...]) -> Iterator[tuple[str, Content]]:
    yield from FILES.items()
    yield from SPECIAL.items()
    for what, text in YAML.items():
        yield what, text.encode("utf-8", "surrogatepass")
    for number in (90, 101, 1_000, 20_000):
        yield from _depth(number).items()
    for key in keys:
        yield f"a bomb as {key}", bomb(9, key).encode()


def recipes(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """Whole files, values of every key, mutants of every method's recipe."""
    from sentei import methods, serialization

    words = [*INSPECT, *world.task, "--recipe", "HERE/recipe.yaml"]
    whole = {
        name: serialization.dump(methods.find(name).build())
        for name in ("platon", "auto", "leap", "l0", "mgpp", "magnitude")
    }
    keys = tuple(yaml.safe_load(whole["platon"]))
    for what, content in _files((*keys, "scope.include", "unknown")):
        if rng.random() < share:
            yield attempt(RECIPES, what, words, {"recipe.yaml": content})
    for name, text in whole.items():
        for what, content in _changed(yaml.safe_load(text), rng, 12):
            if rng.random() < share:
                yield attempt(RECIPES, f"{name}, {what}", words, {"recipe.yaml": content})
        for what, content in mutants(text, 28, rng):
            if rng.random() < share:
                yield attempt(RECIPES, f"{name}, {what}", words, {"recipe.yaml": content})


def _changed(data: dict, rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """One value of a mapping exchanged."""
    for _ in range(count):
        key, what = rng.choice(list(data)), rng.choice(list(VALUES))
        changed = {**data, key: VALUES[what]}
        if isinstance(data[key], dict) and rng.random() < 0.7:
            inner = rng.choice(list(data[key]))
            changed[key] = {**data[key], inner: VALUES[what]}
            key = f"{key}.{inner}"
        yield f"{key} is {what}", yaml.safe_dump(changed).encode()


def plans(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """Whole files, values of every key, mutants; nothing is trained: no run is asked for."""
    words = ["compare", "HERE/plan.yaml", "--out", "HERE/out", "--only", "no/such/run"]
    train, evaluation = (str(world.data[name]) for name in ("train", "eval"))
    plan = {
        "settings": {"model": str(world.model), "batch_size": 16},
        "tasks": {"one": {"train": train, "eval": evaluation, "epochs": 2, "dense_epochs": 1}},
        "recipes": {
            "magnitude": "magnitude",
            "other": {"method": "movement", "set": ["schedule.every=2"], "settings": {"clip": 1}},
        },
        "sparsities": [0.5, 0.8],
        "seeds": [1, 2],
        "search": {"settings": {"learning_rate": [1e-4, 1e-3]}, "trials": 2},
    }
    text = yaml.safe_dump(plan, sort_keys=False)
    for what, content in _files((*plan, "tasks.one", "baseline")):
        if rng.random() < share:
            yield attempt(PLANS, what, words, {"plan.yaml": content})
    for what, content in _changed(plan, rng, 60):
        if rng.random() < share:
            yield attempt(PLANS, what, words, {"plan.yaml": content})
    for what, content in mutants(text, 60, rng):
        if rng.random() < share:
            yield attempt(PLANS, what, words, {"plan.yaml": content})
    for what, name in TEXTS.items():
        named = {**plan, "tasks": {name: plan["tasks"]["one"]}, "recipes": {name: "magnitude"}}
        if rng.random() < share:
            written = yaml.safe_dump(named).encode("utf-8", "surrogatepass")
            yield attempt(PLANS, f"names: {what}", words, {"plan.yaml": written})
