"""Answers to figures: right or wrong by suite and model, self-NLL, length drift, intervals. No process, no files."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from agent.scoring import is_exact, is_right

MODELS = ("candidate", "champion", "base")
SUITES = ("asked", "paraphrase", "holdout", "retention")
NEARBY = "nearby"  # asked near what was taught, and never taught: nobody said what is right
Line = dict[str, Any]


def side_by_side(items: Sequence[Mapping[str, Any]], answers: Mapping[str, Sequence[str]]) -> list[Line]:
    """One line an item: the question, what was expected, and each model's answer with its scores."""
    lines: list[Line] = []
    for number, item in enumerate(items):
        line: Line = {"suite": item["suite"], "question": item["messages"][-1]["content"], "expected": item["expected"]}
        for name in MODELS:
            answer = answers[name][number]
            line[name] = {
                "answer": answer,
                "is_right": is_right(answer, item["keys"]) or is_exact(answer, item["expected"]),
                "is_exact": is_exact(answer, item["expected"]),
            }
        lines.append(line)
    return lines


def summarise(lines: Sequence[Line], nll: Mapping[str, float], job: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation's results. The retention suite counts only what the base gets right:
    that is what there is to lose.
    """
    suites = {}
    for suite in SUITES:
        chosen = [line for line in lines if line["suite"] == suite]
        if suite == "retention":
            chosen = [line for line in chosen if line["base"]["is_right"]]
        suites[suite] = {name: _score(chosen, name) for name in MODELS}
    return {
        "suites": suites,
        "nll": {name: round(nll[name], 6) for name in MODELS},
        "repairs": _repairs([line for line in lines if line["suite"] == "asked"]),
        "nearby": _changed([line for line in lines if line["suite"] == NEARBY]),
        "length_ratio": _length_ratio(lines),
        "num_train": job["num_train"],
        "num_judged": job["num_judged"],
        "max_tokens": job["max_tokens"],
    }


def _score(lines: Sequence[Line], name: str) -> dict[str, Any]:
    right = sum(line[name]["is_right"] for line in lines)
    low, high = wilson_interval(right, len(lines))
    exact = sum(line[name]["is_exact"] for line in lines)
    return {
        "num_right": right,
        "num_exact": exact,
        "num_items": len(lines),
        "low": round(low, 4),
        "high": round(high, 4),
    }


def _repairs(lines: Sequence[Line]) -> dict[str, int]:
    """Of what was corrected before and the champion answers right since: how much the candidate undoes."""
    mended = [line for line in lines if line["champion"]["is_right"]]
    return {"num_items": len(mended), "num_lost": sum(not line["candidate"]["is_right"] for line in mended)}


def _changed(lines: Sequence[Line]) -> dict[str, int]:
    changed = sum(line["candidate"]["answer"] != line["champion"]["answer"] for line in lines)
    return {"num_items": len(lines), "num_changed": changed}


def wilson_interval(num_right: int, num_items: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), honest for few items; (0, 1) when there are none."""
    if num_items == 0:
        return 0.0, 1.0
    share, squared = num_right / num_items, z * z / num_items
    middle = (share + squared / 2) / (1 + squared)
    margin = z * math.sqrt(share * (1 - share) / num_items + squared / (4 * num_items)) / (1 + squared)
    return max(0.0, middle - margin), min(1.0, middle + margin)


def _length_ratio(lines: Sequence[Line]) -> float | None:
    """Candidate's answer length over the base's on retention questions: 1 means no drift; None where none are."""
    retention = [line for line in lines if line["suite"] == "retention"]
    base = sum(len(line["base"]["answer"]) for line in retention)
    return round(sum(len(line["candidate"]["answer"]) for line in retention) / base, 4) if base else None
