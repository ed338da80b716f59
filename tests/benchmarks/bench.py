"""Everything that serving is to show, in one run on one machine: `make bench`

Prints the tables and writes them to docs/serving.md, with the machine and the date. About fifty minutes on two cores,
and ten more the first time, for the other servers.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from tests.benchmarks import beside_training, durability, independence, machine, overload, serving, swaps
from tests.benchmarks.findings import Finding, markdown, table

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
PAGE_TEXT = """# Serving, measured

Written by `make bench`, all in one run: SmolLM2-135M-Instruct on {here}. Other servers are built by the benchmark in
environments of their own and started on the same weights. Clients run on the same cores. Figures of a shared machine
move by a fifth from run to run, ratios less.

## Beside others

Greedy answers of {tokens} tokens to different prompts of about 100, all streamed over loopback; the better of {rounds}
rounds for everybody. Tokens a second while every stream answers; *whole* counts reading the prompts too; *prefill* is
one prompt of about 430 tokens by its time to the first token. `generate()` runs in process, a level as one batch.
We are measured first and once more at the end; goals are held against the slower of the two.

{servers}

Milliseconds, median / 95 %:

{waits}

## What was aimed at

{findings}
"""
PARTS: dict[str, Callable[[Console], list[Finding]]] = {
    "independence": independence.run,
    "logging": durability.run,
    "overload": overload.run,
    "beside training": beside_training.run,
    "swaps": swaps.run,
}


def servers(found: Sequence[serving.Figures], here: machine.Machine) -> str:
    rows = ["| server | 1 | 8 | 32 | whole 8 | whole 32 | prefill | of read speed | RSS MiB |", "|---" * 9 + "|"]
    for one in found:
        speeds = [*(at.decode for at in one.levels), *(at.whole for at in one.levels[1:]), one.prefill]
        share = one.levels[0].decode * serving.WEIGHT_BYTES / (here.read_gb_per_second * 1e9)
        cells = (one.name, *(f"{speed:.0f}" for speed in speeds), f"{share:.0%}", f"{one.resident_bytes >> 20}")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def waits(found: Sequence[serving.Figures]) -> str:
    rows = ["| server | first: 1 | 8 | 32 | next: 1 | 8 | 32 |", "|---" * 7 + "|"]
    for one in found:
        firsts = [f"{at.first_p50 * 1e3:.0f} / {at.first_p95 * 1e3:.0f}" for at in one.levels]
        nexts = [f"{at.next_p50 * 1e3:.0f} / {at.next_p95 * 1e3:.0f}" for at in one.levels]
        rows.append(f"| {' | '.join((one.name, *firsts, *nexts))} |".replace("nan", "–"))
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write the tables")
    chosen = parser.parse_args()
    console = Console()
    here = machine.look(os.cpu_count() or 1)
    compared = serving.run(console)
    found = serving.goals(compared)
    for name, part in PARTS.items():
        try:
            found += part(console)
        except RuntimeError as error:  # a part that fails is told, and the others are still measured
            found.append(Finding(name, f"it failed: {error}", "–", "", is_met=False))
        chosen.page.write_text(page(here, compared, found), encoding="utf-8")
    console.print(table(found, here))
    return 0


def page(here: machine.Machine, compared: Sequence[serving.Figures], found: Sequence[Finding]) -> str:
    return PAGE_TEXT.format(
        here=here,
        tokens=serving.TOKENS,
        rounds=serving.ROUNDS,
        servers=servers(compared, here),
        waits=waits(compared),
        findings=markdown(found),
    )


if __name__ == "__main__":
    sys.exit(main())
