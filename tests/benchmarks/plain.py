"""transformers' own `generate()` on the same questions, all of a level as one padded batch, in a process of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.benchmarks.serving import LEVELS, ROUNDS, TOKENS, Figures, Level, story

NAN = float("nan")


def seconds(model: torch.nn.Module, inputs: dict[str, torch.Tensor], tokens: int) -> float:
    began = time.perf_counter()
    with torch.inference_mode():
        model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    return time.perf_counter() - began


def measure(directory: Path, threads: int) -> dict[str, object]:
    """Tokens a second by level, prompt tokens a second, and resident bytes."""
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()

    def prompts(first: int, count: int, words: int) -> dict[str, torch.Tensor]:
        texts = [
            tokenizer.apply_chat_template(story(first + place, words), tokenize=False, add_generation_prompt=True)
            for place in range(count)
        ]
        return dict(tokenizer(texts, return_tensors="pt", padding=True))

    levels = []
    for count in LEVELS:
        inputs = prompts(3000, count, 60)
        seconds(model, inputs, 4)  # what a new shape costs once
        rounds = [(seconds(model, inputs, 1), seconds(model, inputs, TOKENS)) for _ in range(ROUNDS)]
        levels.append(
            max(((TOKENS - 1) * count / (whole - first), TOKENS * count / whole, first) for first, whole in rounds)
        )
    long = prompts(4000, 1, 380)
    prefill = long["input_ids"].shape[1] / min(seconds(model, long, 1) for _ in range(3))
    return {"levels": levels, "prefill": prefill, "resident": psutil.Process().memory_info().rss}


def figures(directory: Path, threads: int) -> Figures:
    """Measured in a child, whose memory is then its own."""
    command = [sys.executable, "-m", "tests.benchmarks.plain", str(directory), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"generate() ended with {done.returncode}: {done.stderr[-1500:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    levels = tuple(
        Level(count, decode, whole, first, first, count / decode, NAN)
        for count, (decode, whole, first) in zip(LEVELS, found["levels"], strict=True)
    )
    return Figures("generate()", levels, found["prefill"], found["resident"])


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
