"""The evaluation process: `python -m agent.evaluate EVALUATION_DIR`. Same contract as training.

Asks the base, the champion and the candidate the same items and scores them the same way. What the base said is given
in when it is already known for this base and suite, and given out to be kept.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent import child
from agent.rundir import EVALUATE_INPUT, RunDirectory
from agent.scoring import is_right

BATCH = 32
NLL_ITEMS = 40  # enough answers to see drift; one forward pass each
Item = dict[str, Any]


def work(run: RunDirectory, job: dict[str, Any]) -> None:
    """Answers of each model → `answers.jsonl` (one line an item, side by side) and `result.json` (the figures)."""
    from agent import results
    from agent.checkpoint import read
    from agent.model import merge_adapter
    from agent.quantization import rounded
    from agent.tokenizer import Tokenizer

    items = run.rows("items.jsonl")  # {suite, messages, keys, expected, base_answer?}
    tokenizer = Tokenizer(Path(job["base_dir"]))
    run.progress("load", 0, 1)
    base = child.load_model(job)
    serve = rounded if job["quantization"] == "int8" else lambda model: model  # what is measured is what would serve
    run.progress("load", 1, 1)
    adapters = {name: job[f"{name}_adapter"] for name in ("champion", "candidate")}
    served = serve(base)
    answers = {"base": _base_answers(run, served, tokenizer, items, job["max_tokens"])}
    known = _known(items, answers["base"])
    run.write_rows("base_answers.jsonl", known)
    items, answers["base"] = _worth_asking(items, answers["base"])
    right = _known(items, answers["base"]) or known  # also a base that gets none right can be drifted from
    asked_nll = [(line["messages"], line["answer"]) for line in right][:NLL_ITEMS]
    nll = {"base": results.mean_nll(served, tokenizer, asked_nll)}
    del served
    for name, adapter in adapters.items():
        if adapter is None:  # the champion is the base
            answers[name], nll[name] = answers["base"], nll["base"]
            continue
        model = serve(merge_adapter(base, read(Path(adapter))))
        answers[name] = _ask(run, name, model, tokenizer, items, job["max_tokens"])
        nll[name] = results.mean_nll(model, tokenizer, asked_nll)
        del model
    lines = results.side_by_side(items, answers)
    run.write_rows("answers.jsonl", lines)
    run.write("result.json", results.summarise(lines, nll, job))


def _ask(run: RunDirectory, name: str, model: Any, tokenizer: Any, items: Sequence[Item], max_tokens: int) -> list[str]:
    from agent.answers import greedy_answers

    return greedy_answers(
        model,
        tokenizer,
        [item["messages"] for item in items],
        max_tokens=max_tokens,
        batch=BATCH,
        on_answer=lambda done: run.progress(f"ask {name}", done, len(items)),
    )


def _base_answers(run: RunDirectory, model: Any, tokenizer: Any, items: Sequence[Item], max_tokens: int) -> list[str]:
    """The base's answers, asking only what is not known already."""
    unknown = [item for item in items if item.get("base_answer") is None]
    fresh = iter(_ask(run, "base", model, tokenizer, unknown, max_tokens))
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
