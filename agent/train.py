"""The training process: `python -m agent.train RUN_DIR`. A directory in, a directory out; no database, no socket."""

import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent import child
from agent.rundir import SURVEY_FILE, TRAIN_INPUT, RunDirectory


def work(run: RunDirectory, job: dict[str, Any]) -> None:
    """Read rows, train, leave `adapter/` and `result.json`."""
    from agent import checkpoint
    from agent.methods import Job, method
    from agent.recipe import Recipe
    from agent.survey import Survey, everyday_rows, survey_of
    from agent.tokenizer import Tokenizer

    run.progress("load", 0, 1)
    recipe = Recipe.from_json(job["recipe"])
    tokenizer = Tokenizer(Path(job["base_dir"]))
    model = child.load_for_training(job)
    run.progress("load", 1, 1)
    rows = run.rows("train.jsonl")
    lessons = [row for row in rows if row["kind"] == "lesson"]
    if not lessons:
        raise ValueError("train.jsonl holds no lesson; there is nothing to learn")
    replay = [row for row in rows if row["kind"] == "replay"]

    def survey() -> Survey:
        kept = Path(job["survey"]) if job["survey"] else None
        rows = everyday_rows(tokenizer, recipe.replay_tokens)
        return survey_of(model, rows, job["base_id"], kept, run.path / SURVEY_FILE, partial(run.progress, "survey"))

    with TemporaryDirectory(dir=run.path, prefix=".scratch-") as scratch:
        trained = method(recipe.method)(Job(model, tokenizer, lessons, replay, recipe, scratch, run.progress, survey))
    checkpoint.save(trained.model, run.path / "adapter", job["base_id"])
    result = {**trained.figures, "num_lessons": len(lessons), "num_replay": len(replay), "versions": _versions()}
    run.write("result.json", result)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "peft", "trl")}


if __name__ == "__main__":
    sys.exit(child.main(TRAIN_INPUT, work))
