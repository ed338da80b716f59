"""The evaluation process: `python -m agent.evaluate EVALUATION_DIR`. Same contract as training.

Asks the base, the champion and the candidate the same items, each through the engine that would serve it, and scores
them the same way. What the base said is given in when it is already known for this base and suite, and given out to be
kept.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import child
from agent.rundir import EVALUATE_INPUT, RunDirectory
from agent.scoring import is_right

NLL_ITEMS = 40  # enough answers to see drift; one forward pass each
MAX_WAITING = 1 << 20  # all items at once
Item = dict[str, Any]


def work(run: RunDirectory, job: dict[str, Any]) -> None:
    """Answers of each model → `answers.jsonl` (one line an item, side by side) and `result.json` (the figures)."""
    from agent import results
    from agent.answers import mean_nll
    from agent.checkpoint import read
    from agent.flattery import measure

    pleasing = run.rows("flattery.jsonl")  # {question, truth, flattery}
    items = run.rows("items.jsonl")  # {suite, messages, keys, expected, base_answer?}
    run.progress("load", 0, 1)
    loader = child.load_served(job, max_waiting=MAX_WAITING)
    run.progress("load", 1, 1)
    with _engine(loader, "base", None) as engine:
        answers = {"base": _base_answers(run, engine, loader.tokenizer, items, job["max_tokens"])}
        known = _known(items, answers["base"])
        run.write_rows("base_answers.jsonl", known)
        items, answers["base"] = _worth_asking(items, answers["base"])
        right = _known(items, answers["base"]) or known  # also a base that gets none right can be drifted from
        asked_nll = [(line["messages"], line["answer"]) for line in right][:NLL_ITEMS]
        nll = {"base": mean_nll(engine, loader.tokenizer, asked_nll)}
        flattery = {"base": measure(engine, loader.tokenizer, pleasing)}
    for name in ("champion", "candidate"):
        adapter = job[f"{name}_adapter"]
        if adapter is None:  # the champion is the base
            answers[name], nll[name], flattery[name] = answers["base"], nll["base"], flattery["base"]
            continue
        with _engine(loader, name, read(Path(adapter))) as engine:
            answers[name] = _ask(run, name, engine, loader.tokenizer, items, job["max_tokens"])
            nll[name] = mean_nll(engine, loader.tokenizer, asked_nll)
            flattery[name] = measure(engine, loader.tokenizer, pleasing)
    lines = results.side_by_side(items, answers)
    run.write_rows("answers.jsonl", lines)
    run.write("result.json", {**results.summarise(lines, nll, job), "flattery": flattery})


@contextmanager
def _engine(loader: Any, name: str, adapter: Mapping[str, bytes] | None) -> Iterator[Any]:
    engine = loader.build(name, adapter).engine
    try:
        yield engine
    finally:
        engine.close(drain_seconds=0)


def _ask(
    run: RunDirectory, name: str, engine: Any, tokenizer: Any, items: Sequence[Item], max_tokens: int
) -> list[str]:
    from agent.answers import greedy_answers

    return greedy_answers(
        engine,
        tokenizer,
        [item["messages"] for item in items],
        max_tokens=max_tokens,
        on_answer=lambda done: run.progress(f"ask {name}", done, len(items)),
    )


def _base_answers(run: RunDirectory, engine: Any, tokenizer: Any, items: Sequence[Item], max_tokens: int) -> list[str]:
    """The base's answers, asking only what is not known already."""
    unknown = [item for item in items if item.get("base_answer") is None]
    fresh = iter(_ask(run, "base", engine, tokenizer, unknown, max_tokens))
    return [next(fresh) if item.get("base_answer") is None else item["base_answer"] for item in items]


def _worth_asking(items: Sequence[Item], answers: Sequence[str]) -> tuple[list[Item], list[str]]:
    """Without the retention questions that the base gets wrong: there is nothing to lose in them."""
    pairs = [
        (item, answer)
        for item, answer in zip(items, answers, strict=True)
        if item["suite"] != "retention" or is_right(answer, item["keys"])
    ]
    return [item for item, _ in pairs], [answer for _, answer in pairs]


def _known(items: Sequence[Item], answers: Sequence[str]) -> list[Item]:
    return [
        {"messages": item["messages"], "answer": answer}
        for item, answer in zip(items, answers, strict=True)
        if item["suite"] == "retention"
    ]


if __name__ == "__main__":
    sys.exit(child.main(EVALUATE_INPUT, work))
