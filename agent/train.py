"""The training process: `python -m agent.train RUN_DIR`. A directory in, a directory out; no database, no socket."""

import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent import child
from agent.rundir import TRAIN_INPUT, RunDirectory

REPLAY_BATCH = 16


def work(run: RunDirectory, job: dict[str, Any]) -> None:
    """Read rows, let the base answer the replay prompts that have no answer, train, leave `adapter/` and `result.json`."""
    from agent import checkpoint
    from agent.methods import Job, method
    from agent.recipe import Recipe
    from agent.tokenizer import Tokenizer

    run.progress("load", 0, 1)
    recipe = Recipe.from_json(job["recipe"])
    tokenizer = Tokenizer(Path(job["base_dir"]))
    model = child.load_model(job)
    rows = run.rows("train.jsonl")
    lessons = [row for row in rows if row["kind"] == "lesson"]
    if not lessons:
        raise ValueError("train.jsonl holds no lesson; there is nothing to learn")
    replay = _answered(run, model, tokenizer, [row for row in rows if row["kind"] == "replay"], recipe.replay_tokens)
    with TemporaryDirectory(dir=run.path, prefix=".scratch-") as scratch:

        def progress(step: int, total: int, **figures: float) -> None:
            run.progress("train", step, total, **figures)

        trained = method(recipe.method)(Job(model, tokenizer, lessons, replay, recipe, scratch, progress))
    checkpoint.save(trained.model, run.path / "adapter", job["base_id"])
    result = {**trained.figures, "num_lessons": len(lessons), "num_replay": len(replay), "versions": _versions()}
    run.write("result.json", result)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "peft", "trl")}


def _answered(
    run: RunDirectory, model: Any, tokenizer: Any, rows: list[dict[str, Any]], max_tokens: int
) -> list[dict[str, Any]]:
    """Replay rows with the base's own answers; `replay.jsonl` keeps them for later runs on the same base."""
    from agent.answers import greedy_answers

    open_rows = [row for row in rows if row["answer"] is None]
    answers = greedy_answers(
        model,
        tokenizer,
        [row["messages"] for row in open_rows],
        max_tokens=max_tokens,
        batch=REPLAY_BATCH,
        on_answer=lambda done: run.progress("replay", done, len(open_rows)),
    )
    made = [{**row, "answer": answer} for row, answer in zip(open_rows, answers, strict=True)]
    run.write_rows("replay.jsonl", made)
    return [row for row in rows if row["answer"] is not None] + made


if __name__ == "__main__":
    sys.exit(child.main(TRAIN_INPUT, work))
