"""The real default model as it would serve, for benchmarks that ask it many questions; and the embedder beside it."""

import os
from collections.abc import Sequence
from typing import Any

from rich.progress import Progress

from agent.answers import Traced, sampled_answers, traced_answers
from agent.embedding import SentenceEmbedder, Vectors
from agent.engine import Sampling
from agent.serving import ModelLoader
from service import models
from service.config import Settings
from service.loading import model_loader

MAX_TOKENS = 64
Files = dict[str, bytes]


def settings(**changes: Any) -> Settings:
    """On all of this machine's cores, and with room for any number of questions at once."""
    values: dict[str, Any] = {"threads": os.cpu_count() or 1, "max_waiting": 1 << 20}
    return Settings(**(values | changes))


def served(of: Settings) -> ModelLoader:
    """The base, fetched if it is not here."""
    return model_loader(of, models.ensure(of.model, of.paths.models, quiet=True))


def ask(
    loader: ModelLoader, adapter: Files | None, questions: Sequence[str], max_tokens: int = MAX_TOKENS
) -> list[Traced]:
    """One greedy answer a question, by the base or with an adapter; progress on the terminal."""
    engine = loader.build("measured", adapter).engine
    conversations = [[{"role": "user", "content": question}] for question in questions]
    try:
        with Progress(transient=True) as shown:
            task = shown.add_task("asking", total=len(questions))
            return traced_answers(
                engine,
                loader.tokenizer,
                conversations,
                max_tokens=max_tokens,
                on_answer=lambda done: shown.update(task, completed=done),
            )
    finally:
        engine.close(drain_seconds=0)


def draw(loader: ModelLoader, questions: Sequence[str], count: int, temperature: float) -> list[list[str]]:
    """Further answers of the base to each question, drawn at that temperature."""
    engine = loader.build("measured", None).engine
    asked = [[{"role": "user", "content": question}] for question in questions for _ in range(count)]
    samplings = [
        Sampling(max_tokens=MAX_TOKENS, temperature=temperature, seed=seed) for _ in questions for seed in range(count)
    ]
    try:
        said = [text for text, _ in sampled_answers(engine, loader.tokenizer, asked, samplings)]
    finally:
        engine.close(drain_seconds=0)
    return [said[start : start + count] for start in range(0, len(said), count)]


def vectors(of: Settings, texts: Sequence[str]) -> Vectors:
    """Unit vectors (N, dim) of the embedder."""
    sealed = models.ensure(of.embedder, of.paths.models, quiet=True)
    return SentenceEmbedder(sealed.path).embed(texts)
