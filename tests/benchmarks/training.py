"""How fast training is: beside TRL's own trainer on the same rows, beside what the machine's products allow, and from
45 corrections to a verdict: `make bench-train`
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from rich.console import Console
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel, set_seed
from trl import SFTConfig, SFTTrainer

from agent.cooling import CoolingRate
from agent.methods import Job, sft
from agent.model import choose_device, choose_dtype, load_base
from agent.recipe import Recipe, SftSettings
from agent.replay import collate, hidden_states
from agent.row_attention import attend_by_rows
from agent.survey import Survey
from agent.tokenizer import AnsweredIds, Tokenizer
from agent.wordings import training_wordings
from tests.benchmarks import nights, own
from tests.benchmarks.findings import Finding, at_least, at_most, tell
from tests.benchmarks.invented import facts

SEED = 1
ROWS_OF = 10  # facts
STEPS = 24
BATCH = 8
RATE = 5e-4
SEEDS = (1, 2, 3)
CORRECTIONS = 45
POINT = "training"
PLAIN = Recipe(
    sft=SftSettings(is_aimed=False, replay_batch=0, batch=BATCH, learning_rate=RATE, loss_target=1e-9, max_steps=STEPS)
)
Load = Callable[[], PreTrainedModel]


def lessons() -> list[dict[str, Any]]:
    return [
        {
            "messages": [{"role": "user", "content": wording}],
            "answer": fact.correction,
            "source": {"made_by": "wording"},
        }
        for fact in facts(ROWS_OF, SEED)
        for wording in training_wordings(fact.question, fact.correction)
    ]


def _none() -> Survey:
    raise RuntimeError("plain adapters need no survey")


def ours(
    load: Load, tokenizer: Tokenizer, rows: Sequence[Mapping[str, Any]], scratch: str, seed: int
) -> tuple[Any, float]:
    """The model after STEPS plain steps (no replay, no aiming), and the seconds they took."""
    times: list[float] = []
    job = Job(
        load(),
        tokenizer,
        list(map(dict, rows)),
        [],
        replace(PLAIN, seed=seed),
        scratch,
        lambda *_, **__: _tick(times),
        _none,
    )
    trained = sft.train(job)
    return trained.model, times[-1] - times[0]


def theirs(load: Load, tokenizer: Tokenizer, rows: Sequence[AnsweredIds], scratch: str, seed: int) -> tuple[Any, float]:
    """The same adapter, first weights, order and rate with TRL's trainer as it comes: padding, gradient checkpointing,
    whole logits.
    """
    times: list[float] = []

    class Timed(SFTTrainer):  # type: ignore[misc]
        def log(self, logs: dict[str, float], *arguments: Any, **named: Any) -> None:
            if "loss" in logs:
                _tick(times)
            super().log(logs, *arguments, **named)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
            ours = CoolingRate(warmup=PLAIN.sft.warmup_steps, steps=STEPS, share=PLAIN.sft.cooldown)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, ours)
            return self.lr_scheduler

    base = load()
    set_seed(seed)
    model = get_peft_model(
        base, LoraConfig(r=PLAIN.rank, lora_alpha=PLAIN.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    trainer = Timed(
        model=model,
        args=SFTConfig(
            output_dir=scratch,
            max_steps=STEPS,
            seed=seed,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            dataset_kwargs={"skip_prepare_dataset": True},
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=Dataset.from_list([sft.example(row) for row in rows]),
        processing_class=tokenizer.inner,
    )
    trainer.train()
    return model.eval(), times[-1] - times[0]


def _tick(times: list[float]) -> None:
    times.append(time.perf_counter())


def loss(model: Any, rows: Sequence[AnsweredIds]) -> float:
    """Mean nats a token of the rows' answers."""
    base, total, count = model.get_base_model(), 0.0, 0
    with torch.no_grad():
        for row in rows:
            targets = torch.tensor(row.ids[row.answer_at :], device=base.device)
            states = hidden_states(base, collate([row]))[: len(targets)]
            logits = base.get_output_embeddings()(states).float()
            total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
            count += len(targets)
    return total / count


def peak(device: torch.device) -> float:
    """Operations a second of a large product in the precision that trains: the best of several."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(choose_dtype(device)) for _ in range(2))
    best = 0.0
    for _ in range(10):
        began = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for it
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def operations(load: Load, rows: Sequence[AnsweredIds]) -> float:
    """Multiplications and additions of the products in one step of ours."""
    model = load()
    attend_by_rows(model)
    model.get_input_embeddings().register_forward_hook(lambda _, arguments, output: output.requires_grad_())
    with FlopCounterMode(display=False) as counted:
        states = hidden_states(model, collate(rows[:BATCH]))
        model.get_output_embeddings()(states).float().sum().backward()
    return float(counted.get_total_flops())


def compared(console: Console) -> list[Finding]:
    """Both trainers in turns, once a seed; of the times, each one's best."""
    directory = own.base_directory()
    files = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    device = choose_device()
    tokenizer, rows = Tokenizer(directory), lessons()

    def load() -> PreTrainedModel:
        return load_base(files, directory, device, choose_dtype(device))

    tokens = [tokenizer.answered_ids(row["messages"], row["answer"]) for row in rows]
    each = sum(len(row.ids) for row in tokens) / len(tokens) * BATCH * (STEPS - 1)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    losses: dict[str, list[float]] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in SEEDS:
            for name, (model, took) in (
                ("ours", ours(load, tokenizer, rows, scratch, seed)),
                ("theirs", theirs(load, tokenizer, tokens, scratch, seed)),
            ):
                seconds[name].append(took)
                losses[name].append(loss(model, tokens))
                console.print(f"{name}: {each / took:.0f} tokens/s, then {losses[name][-1]:.3f} nats a token")
    best = {name: each / min(took) for name, took in seconds.items()}
    share = operations(load, tokens) * (STEPS - 1) / min(seconds["ours"]) / peak(device)
    return [
        Finding(POINT, "tokens of rows a second", f"{best['ours']:.0f}"),
        Finding(POINT, "the same, TRL's trainer as it comes", f"{best['theirs']:.0f}"),
        at_least(POINT, "ours over TRL's", best["ours"] / best["theirs"], 1.5),
        *same_loss(losses),
        Finding(POINT, "share of the measured peak of large products", f"{share:.0%}"),
    ]


def same_loss(losses: Mapping[str, Sequence[float]]) -> list[Finding]:
    """Whether both come to the same loss: the means of theirs and ours lie no further apart than seeds of theirs."""
    told = (", ".join(f"{one:.3f}" for one in losses[name]) for name in ("ours", "theirs"))
    apart = abs(mean(losses["ours"]) - mean(losses["theirs"]))
    noise = max(max(losses["theirs"]) - min(losses["theirs"]), 1e-3)
    return [
        Finding(POINT, f"loss after {STEPS} steps by seed, ours / TRL's", " / ".join(told)),
        at_most(POINT, f"their means apart, of the {noise:.3f} nats that seeds are apart", apart / noise, 1.0),
    ]


def whole(console: Console) -> list[Finding]:
    """From corrections to a verdict in a daemon, first on a base that no run has surveyed, then as ever after."""
    everything = facts(nights.A_NIGHT + CORRECTIONS, SEED)
    first, rest = everything[: nights.A_NIGHT], everything[nights.A_NIGHT :]
    took = []
    with nights.daemon(os.cpu_count() or 1, own.state() / "models") as client:
        for some in (first, rest[: CORRECTIONS - len(first)]):
            for fact in some:
                nights.teach(client, fact)
            began = time.monotonic()
            run = nights.train(client, lambda line: None)
            took.append(time.monotonic() - began)
            console.print(f"{took[-1]:.0f} s to a verdict; run {run['id'][:8]}")
    return [
        Finding(POINT, f"{len(first)} corrections to a verdict, the first run on a base", f"{took[0]:.0f} s"),
        at_most(POINT, f"{CORRECTIONS} corrections to a verdict", took[1], 180, " s"),
    ]


def run(console: Console) -> list[Finding]:
    torch.set_num_threads(os.cpu_count() or 1)
    return compared(console) + whole(console)


def main() -> int:
    console = Console()
    tell(console, run(console))
    return 0


if __name__ == "__main__":
    sys.exit(main())
