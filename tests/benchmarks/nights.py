"""Twenty nights: five invented facts a day, corrected through feedback, trained, measured, approved, served; what is
left of the first at the end: `make bench-nights`
A real daemon on the real model. Each night trains from the base on everything taught so far; a candidate that policy
refuses is not approved, and its day's facts come again with the next night's. About an hour on two cores.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from service import demo
from service.cli.deciding import decide
from service.cli.operator import introduce_operator
from service.client import Client
from store.records import Decision
from tests.benchmarks import own
from tests.benchmarks.findings import Finding, at_least, at_most, percent, tell
from tests.benchmarks.invented import Invented, facts

NIGHTS = 20
A_NIGHT = 5
SEED = 1
MODEL = "m"
OPERATOR = "bench"
TOGETHER = 8  # questions under way at once
POLL_SECONDS = 1.0
POINT = "nights"


@dataclass(frozen=True, slots=True)
class Night:
    """What stood after it: of `num_taught` facts those right as asked, in a paraphrase and in another one, by the
    endpoint; of the candidate's evaluation the rest.
    """

    number: int
    num_taught: int
    asked: int
    paraphrased: int
    otherwise: int
    kept: int
    retention: int
    nll_rise: float
    length: float | None  # None where nothing was there to lose
    verdict: str
    steps: int
    training_seconds: float
    seconds: float


@contextmanager
def daemon(threads: int, models: Path, **environment: str) -> Iterator[Client]:
    """A daemon with an operator of its own and no history, and these models."""
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory) / "state"
        state.mkdir(mode=0o700)
        demo.prepare(state, models)
        os.environ.update(HONED_STATE=str(state), HONED_KEYS=str(Path(directory) / "keys"))
        with demo.daemon(state, {"HONED_MODEL_NAME": MODEL, "HONED_THREADS": str(threads), **environment}) as client:
            introduce_operator(OPERATOR, None)
            yield client


def approve(checkpoint: str) -> None:
    decide(
        checkpoint,
        Decision.APPROVE,
        reason="policy lets it pass",
        operator=OPERATOR,
        days=1.0,
        is_sure=True,
        is_quiet=True,
    )


def known(client: Client, questions: Sequence[tuple[Invented, str]]) -> int:
    """How many questions about facts the endpoint answers right."""

    def ask(question: str) -> str:
        return str(demo.ask(client, MODEL, question)["choices"][0]["message"]["content"])

    with ThreadPoolExecutor(TOGETHER) as pool:
        answers = pool.map(ask, [question for _, question in questions])
        return sum(fact.is_known(answer) for (fact, _), answer in zip(questions, answers, strict=True))


def teach(client: Client, fact: Invented) -> None:
    turn = demo.ask(client, MODEL, fact.question)
    told = {"interaction_id": turn["honed"]["interaction_id"], "rating": "down", "correction": fact.correction}
    client.post("/v1/feedback", told)


def train(client: Client, tell_step: Any) -> dict[str, Any]:
    """The run's end; RuntimeError when it failed."""
    run: dict[str, Any] = client.post("/operator/train", {"operator": "bench"})
    while run["state"] not in ("judged", "failed", "interrupted"):
        time.sleep(POLL_SECONDS)
        run = client.get(f"/operator/runs/{run['id']}")
        for line in run["metrics"][-1:]:
            tell_step(line)
    if run["state"] != "judged":
        raise RuntimeError(f"the run {run['state']}: {run['error']}")
    return run


def night(client: Client, number: int, taught: Sequence[Invented], new: Sequence[Invented], tell_step: Any) -> Night:
    """A day's corrections and the night after it."""
    began = time.monotonic()
    for fact in new:
        teach(client, fact)
    started = time.monotonic()
    run = train(client, tell_step)
    trained = time.monotonic() - started
    review = client.get(f"/operator/review?checkpoint={run['checkpoint']}")
    if review["verdict"] == "pass":
        approve(run["checkpoint"])
    results, kept = review["results"], review["results"]["suites"]["retention"]["candidate"]
    return Night(
        number=number,
        num_taught=len(taught),
        asked=known(client, [(fact, fact.question) for fact in taught]),
        paraphrased=known(client, [(fact, fact.paraphrase) for fact in taught]),
        otherwise=known(client, [(fact, fact.other) for fact in taught]),
        kept=kept["num_right"],
        retention=kept["num_items"],
        nll_rise=results["nll"]["candidate"] - results["nll"]["base"],
        length=results["length_ratio"],
        verdict=" ".join([review["verdict"], *(rule["id"] for rule in review["rules"] if review["verdict"] != "pass")]),
        steps=int(review["training"]["steps"]),
        training_seconds=trained,
        seconds=time.monotonic() - began,
    )


def nights(client: Client, console: Console, count: int) -> list[Night]:
    """One after another, in one life of a daemon."""
    everything, passed = facts(count * A_NIGHT, SEED), list[Night]()
    with Progress(console=console, transient=True) as shown:
        whole, step = shown.add_task("nights", total=count), shown.add_task("", total=None)

        def tell_step(line: dict[str, Any]) -> None:
            shown.update(step, description=line["phase"], completed=line["step"], total=line["total"])

        for number in range(1, count + 1):
            taught = everything[: number * A_NIGHT]
            passed.append(night(client, number, taught, taught[-A_NIGHT:], tell_step))
            shown.update(whole, completed=number)
            console.print(asdict(passed[-1]), soft_wrap=True)
    return passed


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def goals(passed: Sequence[Night]) -> list[Finding]:
    """What the last night is held against."""
    last = passed[-1]
    each = [_told(one) for one in passed]
    name = f"after {last.number} nights of {A_NIGHT} facts:"
    promoted = sum(one.verdict == "pass" for one in passed)
    return [
        at_least(POINT, f"{name} right as asked", percent(last.asked, last.num_taught), 95, " %"),
        at_least(POINT, f"{name} right in an unseen paraphrase", percent(last.paraphrased, last.num_taught), 85, " %"),
        Finding(
            POINT,
            f"{name} right in another, written when the recipe stood",
            f"{percent(last.otherwise, last.num_taught):.0f} %",
        ),
        at_least(POINT, f"{name} of what the base gets right, kept", percent(last.kept, last.retention), 98, " %"),
        at_most(POINT, f"{name} loss on the base's own answers, rise", last.nll_rise, 0.05, " nats"),
        Finding(POINT, f"{name} length of answers over the base's", _ratio(last.length)),
        Finding(POINT, "candidates that policy let pass", f"{promoted} of {len(passed)}"),
        Finding(POINT, "seconds from the order to a verdict, last night", f"{last.training_seconds:.0f}"),
        *each,
    ]


def _told(one: Night) -> Finding:
    figure = (
        f"{one.asked} asked, {one.paraphrased} paraphrased, {one.otherwise} otherwise, "
        f"{one.kept} of {one.retention} kept, {one.steps} steps, "
        f"{one.training_seconds:.0f} s, {one.verdict}"
    )
    return Finding(POINT, f"night {one.number}, {one.num_taught} facts", figure)


def run(console: Console, count: int = NIGHTS) -> list[Finding]:
    with daemon(os.cpu_count() or 1, own.state() / "models") as client:
        return goals(nights(client, console, count))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=NIGHTS, help="how many")
    console = Console()
    tell(console, run(console, parser.parse_args().nights))
    return 0


if __name__ == "__main__":
    sys.exit(main())
