"""The command ``sentei``: argv in, words out. One verb a file; nothing here computes."""

from sentei.cli import (
    augment,
    bench,
    compare,
    demo,
    evaluate,
    export,
    inspect,
    methods,
    pack,
    prune,
    report,
    shrink,
    unpack,
    verify,
)
from sentei.cli.app import app, main

__all__ = [
    "app",
    "augment",
    "bench",
    "compare",
    "demo",
    "evaluate",
    "export",
    "inspect",
    "main",
    "methods",
    "pack",
    "prune",
    "report",
    "shrink",
    "unpack",
    "verify",
]
