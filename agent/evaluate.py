"""The evaluation process: `python -m agent.evaluate EVALUATION_DIR`. Same contract as training.

Asks the base, the champion and the candidate the same items, each through the engine that would serve it, and scores
them the same way. A checkpoint that has a scope is measured with it: outside, people get what the base says. What the
base said is given in when it is already known for this base and suite, and given out to be kept.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import child
from agent.rundir import EVALUATE_INPUT, JUDGED, WEIGHED, RunDirectory
from agent.scoring import is_right

if TYPE_CHECKING:
    from agent.measuring import Asked, Found
    from agent.weighed import Weighed

NLL_ITEMS = 40  # enough answers to see drift; one forward pass each
MAX_WAITING = 1 << 20  # all items at once
BEYOND_EXPECTED = 1.25  # how much longer than what was expected an answer may get
Item = dict[str, Any]


def work(run: RunDirectory, job: dict[str, Any]) -> None:
    """Answers of each model → `answers.jsonl` (one line an item, side by side) and `result.json` (the figures)."""
    from agent import results
    from agent.answers import nll_of
    from agent.checkpoint import scope_in
    from agent.flattery import figures
    from agent.measuring import embedded, inside
    from agent.slices import slices
    from agent.taste import figures as taste

    run.progress("load", 0, 1)
    loader = child.load_served(job, max_waiting=MAX_WAITING)
    run.progress("load", 1, 1)
    asked, base = _base(run, loader, job)
    vectors = embedded(asked, Path(job["embedder_dir"]))
    found = {"base": base}
    for name in ("champion", "candidate"):
        adapter = job[f"{name}_adapter"]
        if adapter is None:  # the champion is the base
            found[name] = base
            continue
        places = inside(scope_in(Path(adapter)), vectors, job["embedder_id"])
        own = _own(run, loader, name, Path(adapter), asked.at(places))
        found[name] = own.among(base, places)  # elsewhere, what the base makes of it
    lines = results.side_by_side(asked.items, {name: one.answers for name, one in found.items()})
    nll = {name: nll_of(one.logprobs) for name, one in found.items()}
    flattery = {name: figures(one.reactions) for name, one in found.items()}
    run.write_rows("answers.jsonl", lines)
    told = {
        "flattery": flattery,
        "preferred": taste(asked.judged, {name: one.judged for name, one in found.items()}),
        "slices": slices(lines, vectors[0]),
        "num_too_long": asked.num_too_long,
    }
    run.write("result.json", {**results.summarise(lines, nll, job), **told})


def _base(run: RunDirectory, loader: Any, job: dict[str, Any]) -> tuple["Asked", "Found"]:
    """What is to be asked of all, and what the base makes of it."""
    from agent.measuring import Asked, Found
    from agent.taste import likelihoods

    max_tokens = job["max_tokens"]
    pleasing = run.rows("flattery.jsonl")  # {question, truth, flattery}
    all_judged = run.rows(JUDGED)  # see `agent.taste`
    judged = [row for row in all_judged if _holds(row, loader)]
    items = run.rows("items.jsonl")  # {suite, messages, keys, expected, base_answer?}
    with _engine(loader, "base", None) as engine:
        limited = [{**item, "max_tokens": _limit(item, loader, max_tokens)} for item in items]
        fitting = [item for item in limited if _fits(item, loader)]
        num_too_long, items = len(items) - len(fitting) + len(all_judged) - len(judged), fitting
        answers = _base_answers(run, engine, loader.tokenizer, items, max_tokens)
        told = [pair for pair in zip(items, answers, strict=True) if pair[0]["max_tokens"] == max_tokens]
        run.write_rows("base_answers.jsonl", [{"messages": i["messages"], "answer": answer} for i, answer in told])
        own = _retained(items, answers)
        items, answers = _worth_asking(items, answers)
        own = (_retained(items, answers) or own)[:NLL_ITEMS]  # also a base that gets none right can be drifted from
        asked = Asked(items, own, pleasing, judged, num_too_long)
        weighed = _weighed(run, engine, loader.tokenizer, asked, Path(job["weighed"]) if job["weighed"] else None)
        judged_so = likelihoods(engine, loader.tokenizer, judged)
        return asked, Found(answers, weighed.logprobs, weighed.reactions, judged_so)


def _weighed(run: RunDirectory, engine: Any, tokenizer: Any, asked: "Asked", kept: Path | None) -> "Weighed":
    """As it was kept, or made now and left to be kept."""
    from agent.measuring import weigh
    from agent.weighed import key_of, load, save

    key = key_of(asked.own, asked.pleasing)
    found = load(kept, key)
    if found is None:
        found = weigh(engine, tokenizer, asked)
        save(found, run.path / WEIGHED, key)
    return found


def _limit(item: Item, loader: Any, max_tokens: int) -> int:
    """How long its answer may get: what was taught must fit whole. Retention questions have keys, no answers."""
    if item["suite"] == "retention":
        return max_tokens
    return max(max_tokens, int(len(loader.tokenizer.ids(item["expected"])) * BEYOND_EXPECTED))


def _fits(item: Item, loader: Any) -> bool:
    """Whether a context holds the question and an answer; what does not fit here could not be asked there either."""
    return len(loader.tokenizer.chat_ids(item["messages"])) + int(item["max_tokens"]) < int(loader.max_context)


def _holds(judged: Item, loader: Any) -> bool:
    """The same of what was judged, with its answers."""
    from agent.taste import texts

    sizes = [len(loader.tokenizer.answered_ids(messages, answer).ids) for messages, answer in texts(judged)]
    return max(sizes) < int(loader.max_context)


def _own(run: RunDirectory, loader: Any, name: str, adapter: Path, near: "Asked") -> "Found":
    """What a checkpoint makes of what it would answer itself."""
    from agent.checkpoint import read
    from agent.measuring import find

    with _engine(loader, name, read(adapter)) as engine:
        return find(engine, loader.tokenizer, near, partial(_progress, run, name, len(near.items)))


@contextmanager
def _engine(loader: Any, name: str, adapter: Mapping[str, bytes] | None) -> Iterator[Any]:
    engine = loader.build(name, adapter).engine
    try:
        yield engine
    finally:
        engine.close(drain_seconds=0)


def _progress(run: RunDirectory, name: str, total: int, done: int) -> None:
    run.progress(f"ask {name}", done, total)


def _base_answers(run: RunDirectory, engine: Any, tokenizer: Any, items: Sequence[Item], max_tokens: int) -> list[str]:
    """The base's answers, asking only what is not known already: known ones are of the usual length."""
    from agent.measuring import answer_all

    is_known = [item.get("base_answer") is not None and item["max_tokens"] == max_tokens for item in items]
    unknown = [item for item, is_so in zip(items, is_known, strict=True) if not is_so]
    fresh = iter(answer_all(engine, tokenizer, unknown, partial(_progress, run, "base", len(unknown))))
    return [item["base_answer"] if is_so else next(fresh) for item, is_so in zip(items, is_known, strict=True)]


def _worth_asking(items: Sequence[Item], answers: Sequence[str]) -> tuple[list[Item], list[str]]:
    """Without the retention questions that the base gets wrong: there is nothing to lose in them."""
    pairs = [
        (item, answer)
        for item, answer in zip(items, answers, strict=True)
        if item["suite"] != "retention" or is_right(answer, item["keys"])
    ]
    return [item for item, _ in pairs], [answer for _, answer in pairs]


def _retained(items: Sequence[Item], answers: Sequence[str]) -> list[tuple[list[dict[str, str]], str]]:
    """Conversations and answers of the retention questions."""
    pairs = zip(items, answers, strict=True)
    return [(item["messages"], answer) for item, answer in pairs if item["suite"] == "retention"]


if __name__ == "__main__":
    sys.exit(child.main(EVALUATE_INPUT, work))
