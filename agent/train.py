"""The training process: `python -m agent.train RUN_DIR`. A directory in, a directory out; no database, no socket."""

import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent import child
from agent.rundir import SURVEY_FILE, TRAIN_INPUT, RunDirectory

KINDS = {"lesson": "num_lessons", "replay": "num_replay", "preference": "num_pairs", "rated": "num_rated"}


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
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}
    if recipe.has_lessons and not by_kind["lesson"]:
        raise ValueError("train.jsonl holds no lesson; there is nothing to learn")

    def survey() -> Survey:
        kept = Path(job["survey"]) if job["survey"] else None
        everyday = everyday_rows(tokenizer, recipe.replay_tokens)
        return survey_of(model, everyday, job["base_id"], kept, run.path / SURVEY_FILE, partial(run.progress, "survey"))

    with TemporaryDirectory(dir=run.path, prefix=".scratch-") as scratch:
        learn = Job(
            model,
            tokenizer,
            by_kind["lesson"],
            by_kind["replay"],
            recipe,
            scratch,
            run.progress,
            survey,
            pairs=by_kind["preference"],
            rated=by_kind["rated"],
        )
        trained = method(recipe.method)(learn)
    checkpoint.save(trained.model, run.path / "adapter", job["base_id"])
    counts = {name: len(by_kind[kind]) for kind, name in KINDS.items()}
    run.write("result.json", {**trained.figures, **counts, "versions": _versions()})


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "peft", "trl")}


if __name__ == "__main__":
    sys.exit(child.main(TRAIN_INPUT, work))
