"""What a benchmark found beside what was aimed at, as a table on the terminal and in a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from tests.benchmarks.machine import Machine


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure. `is_met` is None where nothing was aimed at."""

    point: str
    name: str
    figure: str
    aim: str = ""
    is_met: bool | None = None

    @property
    def judgement(self) -> str:
        return {True: "met", False: "MISSED", None: ""}[self.is_met]


def at_least(point: str, name: str, figure: float, aim: float, unit: str = "") -> Finding:
    """NaN, which a run without answers gives, meets nothing."""
    return Finding(point, name, f"{figure:.2f}{unit}", f"≥ {aim:g}{unit}", figure >= aim)


def at_most(point: str, name: str, figure: float, aim: float, unit: str = "") -> Finding:
    return Finding(point, name, f"{figure:.2f}{unit}", f"≤ {aim:g}{unit}", figure <= aim)


def exactly(point: str, name: str, figure: int, aim: int) -> Finding:
    return Finding(point, name, f"{figure:,}", f"{aim:,}", figure == aim)


def percent(count: float, of: float) -> float:
    """NaN of nothing."""
    return 100 * count / of if of else float("nan")


def table(found: Sequence[Finding], here: Machine) -> Table:
    """For the terminal."""
    shown = Table(title=f"SmolLM2-135M-Instruct on {here}", title_justify="left")
    for name in ("what", "", "figure", "aim", ""):
        shown.add_column(name)
    for one in found:
        shown.add_row(one.point, one.name, one.figure, one.aim, one.judgement)
    return shown


def tell(console: Console, found: Sequence[Finding]) -> None:
    """A line each."""
    for one in found:
        console.print(one.point, one.name, one.figure, one.aim, one.judgement)


def markdown(found: Sequence[Finding]) -> str:
    """For a page."""
    rows = [f"| {one.point} | {one.name} | {one.figure} | {one.aim} | {one.judgement} |" for one in found]
    return "\n".join(["| what | | figure | aim | |", "|---|---|---|---|---|", *rows])
