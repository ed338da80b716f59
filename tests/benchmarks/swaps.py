"""10,000 requests while the weights change 20 times: does anybody notice? `make bench-swaps`

A real daemon on the real base serves in a process of its own; candidates are random adapters of two kinds, promoted
with signed approvals and rolled back in turn. Every answer is compared with what the checkpoint it names says when
nothing else happens: an answer from two checkpoints, or from the wrong one, differs.
"""

import argparse
import asyncio
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from tests.benchmarks import own
from tests.benchmarks.findings import Finding, at_most, exactly, tell
from tests.benchmarks.load import Endpoint, Reply, ask, percentile

QUESTIONS = 40
TOKENS = 10
AT_ONCE = 16
PORT = 4712


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Tell me about number {number}, please."}]


# ── the daemon's side ────────────────────────────────────────────────────────────────────────────────────────────────


def serve(port: int) -> None:
    """A daemon that swaps when a line comes in, and tells each swap in a line that goes out."""
    from service.config import Settings
    from service.daemon import Daemon
    from service.scheduler import Scheduler
    from tests.service.ledger_fakes import add_operator

    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory) / "state"
        state.mkdir(mode=0o700)
        (state / "models").symlink_to(own.state() / "models")
        os.environ |= {"HONED_STATE": str(state), "HONED_LOG_JSON": "true", "HONED_SCORE_INTERVAL_SECONDS": "3600"}
        daemon = Daemon(Settings(port=port, model_name="m", max_waiting=1000))
        daemon.scheduler = Scheduler([])  # what learns would take up the runs that candidates here pretend to come from
        kinds = {name: random_adapter(daemon, seed) for seed, name in enumerate(("x", "y"))}
        say({"answers": {name: answers(daemon, files) for name, files in {"base": None, **kinds}.items()}})
        person = add_operator(daemon)
        threading.Thread(target=swap_on_demand, args=(daemon, person, kinds), daemon=True).start()
        daemon.run()


def say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def random_adapter(daemon: Any, seed: int) -> dict[str, bytes]:
    """A random adapter for the real base, strong enough to change what it says."""
    import torch
    from safetensors.torch import save

    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, module in daemon.loader._base.named_modules():
        if isinstance(module, torch.nn.Linear) and "layers" in name:
            a = torch.randn((2, module.in_features), generator=generator) * 0.05
            b = torch.randn((module.out_features, 2), generator=generator) * 0.05
            tensors |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"}
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(tensors)}


def answers(daemon: Any, files: dict[str, bytes] | None) -> list[str]:
    """What these weights say to every question when asked alone."""
    from agent.engine import GenerationRequest, Sampling, complete

    served = daemon.loader.build("0" * 64, files)
    found = []
    for number in range(QUESTIONS):
        ids = tuple(daemon.loader.tokenizer.chat_ids(messages(number)))
        found.append(complete(served.engine, GenerationRequest(ids, Sampling(max_tokens=TOKENS)))[0])
    served.engine.close(drain_seconds=0)
    return found


def swap_on_demand(daemon: Any, person: Any, kinds: dict[str, dict[str, bytes]]) -> None:
    from tests.service.ledger_fakes import add_candidate, promote

    kind_of = {daemon.base.id: "base"}
    say({"ready": True, "checkpoint": daemon.base.id, "kind": "base"})
    for number, _ in enumerate(sys.stdin):
        began = time.time()
        if number % 3 == 2:
            daemon.rollout.roll_back(actor="operator:ann", reason="benchmark")
        else:
            kind = ("x", "y")[number % 2]
            candidate = add_candidate(daemon, files=kinds[kind])
            kind_of[candidate.id] = kind
            promote(daemon, person, candidate)
        now = daemon.rollout.serving.current.checkpoint_id
        while daemon.rollout.serving._draining:
            time.sleep(0.01)
        say({"checkpoint": now, "kind": kind_of[now], "began": began, "ended": time.time()})


# ── the other side ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Timed:
    """One reply, which question it answers, and when (wall clock)."""

    number: int
    began: float
    reply: Reply

    @property
    def ended(self) -> float:
        return self.began + self.reply.seconds


class Side:
    """The daemon's process. What it prints is read at once, by a thread: a full pipe would stop its event loop."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.answers: dict[str, list[str]] = {}
        self.kinds: dict[str, str] = {}
        self.swaps: list[dict[str, Any]] = []
        self._told: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            if line.startswith("{") and '"event"' not in line:  # the rest is its log
                self._told.put(json.loads(line))
        self._told.put(None)

    def next(self) -> dict[str, Any]:
        told = self._told.get()
        if told is None:
            raise RuntimeError("the daemon's process ended")
        if "kind" in told:
            self.kinds[told["checkpoint"]] = told["kind"]
        return told

    def swap(self) -> None:
        if self.process.stdin:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        self.swaps.append(self.next())


async def load(endpoint: Endpoint, count: int, side: Side, num_swaps: int, progress: Any) -> list[Timed]:
    """All requests, half of them streaming, with the swaps spread over them."""
    done: list[Timed] = []
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            body = {"messages": messages(number % QUESTIONS), "max_tokens": TOKENS, "temperature": 0}
            began = time.time()
            reply = await ask(endpoint, {**body, "stream": number % 2 == 0})
            done.append(Timed(number % QUESTIONS, began, reply))
            progress()

    async def swapper() -> None:
        for turn in range(num_swaps):
            while len(done) < (turn + 0.5) * count / num_swaps:
                await asyncio.sleep(0.05)
            await asyncio.to_thread(side.swap)

    await asyncio.gather(swapper(), *(client() for _ in range(AT_ONCE)))
    return done


def judge(done: list[Timed], side: Side) -> dict[str, Any]:
    """Failures, wrong answers, and latencies with and without a swap under way."""
    failed = [one for one in done if not one.reply.is_whole]
    wrong = [one for one in done if one.reply.is_whole and not _is_its_own(one, side)]
    during: list[float] = []
    apart: list[float] = []
    for one in done:
        is_during = any(swap["began"] < one.ended and one.began < swap["ended"] for swap in side.swaps)
        (during if is_during else apart).append(one.reply.seconds)
    return {
        "requests": len(done),
        "swaps": len(side.swaps),
        "failed": len(failed),
        "first_failure": failed[0].reply.error if failed else None,
        "not_its_checkpoints_answer": len(wrong),
        "by_checkpoint": len({one.reply.checkpoint for one in done}),
        "swap_seconds": round(percentile([swap["ended"] - swap["began"] for swap in side.swaps], 0.5), 2),
        "p99_apart_seconds": round(percentile(apart, 0.99), 3),
        "p99_during_seconds": round(percentile(during, 0.99), 3),
        "num_during": len(during),
    }


def _is_its_own(one: Timed, side: Side) -> bool:
    kind = side.kinds.get(one.reply.checkpoint or "")
    return kind is not None and one.reply.text == side.answers[kind][one.number]


def run(console: Console, num_requests: int = 10_000, num_swaps: int = 20) -> list[Finding]:
    console.print(f"swaps: {num_requests:,} requests over {num_swaps} swaps (several minutes)")
    told = measure(console, num_requests, num_swaps)
    ratio = told["p99_during_seconds"] / told["p99_apart_seconds"]
    apart, during = (f"{told[name] * 1e3:.0f}" for name in ("p99_apart_seconds", "p99_during_seconds"))
    return [
        Finding("swaps", "requests, half of them streaming", f"{told['requests']:,} over {told['swaps']} swaps"),
        exactly("swaps", f"failed {told['first_failure'] or ''}".strip(), told["failed"], 0),
        exactly("swaps", "not the answer of the checkpoint they name", told["not_its_checkpoints_answer"], 0),
        at_most("swaps", f"p99 {apart} ms apart, {during} ms during a swap: ratio", ratio, 2.0),
        Finding(
            "swaps", "a swap, from the order to the last answer of the old weights", f"{told['swap_seconds']:.1f} s"
        ),
    ]


def measure(console: Console, num_requests: int, num_swaps: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.swaps", "--serve", str(PORT)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        side = Side(process)
        side.answers = side.next()["answers"]
        side.next()
        endpoint = Endpoint(f"http://127.0.0.1:{PORT}", "m")
        with Progress(console=console) as progress:
            task = progress.add_task("requests", total=num_requests)
            time.sleep(1.0)  # the socket opens after the parts are built
            done = asyncio.run(load(endpoint, num_requests, side, num_swaps, lambda: progress.advance(task)))
        return judge(done, side)
    finally:
        process.terminate()
        process.wait(60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--swaps", type=int, default=20)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve)
        return 0
    console = Console()
    tell(console, run(console, chosen.requests, chosen.swaps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
