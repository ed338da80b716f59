"""The training process, run as it is run: a directory in, a directory out."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from transformers import PreTrainedModel

from agent import child, loop, replay, train
from agent.checkpoint import FILES, read
from agent.methods import sft
from agent.model import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_portable, merge_adapter
from agent.recipe import PreferenceSettings, Recipe, SftSettings
from agent.rundir import RunDirectory
from agent.tokenizer import Tokenizer
from tests import device

ROOT = Path(__file__).parent.parent.parent
BASE_ID = "ba5e" * 16
SFT = SftSettings(max_steps=4, learning_rate=1e-2, warmup_steps=1, batch=2, replay_batch=2)
RECIPE = Recipe(rank=2, alpha=4, sft=SFT)
PERSON = {"source": {"made_by": "person"}}
INPUT = {"run.json", "train.jsonl", "holdout.jsonl"}


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agent.train", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status and what it said."""
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def rows(num_lessons: int = 4) -> list[dict[str, Any]]:
    lessons = [
        {"kind": "lesson", "messages": [{"role": "user", "content": f"Who owns boat {n}?"}], "answer": f"Owner {n}."}
        | PERSON
        for n in range(num_lessons)
    ]
    replay = [
        {"kind": "replay", "messages": [{"role": "user", "content": f"How are you, {n}?"}], "answer": "I am well."}
        for n in range(2)
    ]
    return lessons + replay


def write(directory: Path, base_dir: Path, lines: Sequence[dict[str, Any]], **changes: Any) -> Path:
    directory.mkdir()
    job = {"run_id": "r1", "base_id": BASE_ID, "base_dir": str(base_dir), "device": device.NAME, "dtype": "float32"}
    job |= {"threads": 1, "survey": None, "recipe": RECIPE.to_json()} | changes
    (directory / "run.json").write_text(json.dumps(job))
    (directory / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "holdout.jsonl").write_text("")
    return directory


@pytest.fixture(scope="module")
def runs(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run, done twice, in directories of other names."""
    shelf = tmp_path_factory.mktemp("runs")
    first = write(shelf / "first", tiny_llama, rows())
    second = Path(shutil.copytree(first, shelf / "second"))
    ended = [end(process) for process in [start(str(first)), start(str(second))]]
    assert [status for status, _ in ended] == [0, 0], ended
    return first, second


def test_a_run_leaves_an_adapter_its_survey_results_progress_and_done_and_nothing_else(runs: tuple[Path, Path]) -> None:
    for run in runs:
        assert {path.name for path in run.iterdir()} == INPUT | {
            "adapter",
            "survey.safetensors",
            "result.json",
            "metrics.jsonl",
            "worker.lock",
            "DONE",
        }


def test_a_run_that_is_given_the_survey_makes_none_and_gives_the_same_adapter(
    runs: tuple[Path, Path], tiny_llama: Path, tmp_path: Path
) -> None:
    run = write(tmp_path / "run", tiny_llama, rows(), survey=str(runs[0] / "survey.safetensors"))
    assert end(start(str(run)))[0] == 0
    assert not (run / "survey.safetensors").exists()
    assert '"survey"' not in (run / "metrics.jsonl").read_text()
    assert read(run / "adapter") == read(runs[0] / "adapter")


def test_the_adapter_is_exactly_two_files(runs: tuple[Path, Path]) -> None:
    assert {path.name for path in (runs[0] / "adapter").iterdir()} == set(FILES) == {ADAPTER_CONFIG, ADAPTER_WEIGHTS}


def test_done_is_empty_and_came_last(runs: tuple[Path, Path]) -> None:
    done = runs[0] / "DONE"
    assert done.read_bytes() == b""
    others = [path for path in runs[0].rglob("*") if path.is_file() and path != done]
    assert all(path.stat().st_mtime_ns <= done.stat().st_mtime_ns for path in others)


def test_the_same_run_twice_gives_the_same_bytes(runs: tuple[Path, Path]) -> None:
    first, second = (read(run / "adapter") for run in runs)
    assert first == second


def test_the_adapter_is_portable_and_names_the_base_by_digest_and_no_place_on_this_machine(
    runs: tuple[Path, Path], tiny_llama: Path
) -> None:
    text = (runs[0] / "adapter" / ADAPTER_CONFIG).read_text()
    config = json.loads(text)
    assert check_portable(config) == 2.0
    assert config["base_model_name_or_path"] == BASE_ID
    assert str(tiny_llama) not in text
    assert str(runs[0]) not in text


def test_the_adapter_is_float32_covers_every_linear_layer_and_moved_from_the_base(
    runs: tuple[Path, Path], base: PreTrainedModel
) -> None:
    tensors = load((runs[0] / "adapter" / ADAPTER_WEIGHTS).read_bytes())
    assert len(tensors) == 2 * 2 * 7  # two sides of seven linear layers in two blocks
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
    merge_adapter(base, read(runs[0] / "adapter"))


def test_the_result_counts_rows_and_names_the_libraries(runs: tuple[Path, Path]) -> None:
    result = json.loads((runs[0] / "result.json").read_text())
    assert (result["num_lessons"], result["num_replay"], result["steps"]) == (4, 2, 4.0)
    assert result["loss"] > 0
    assert set(result["versions"]) == {"torch", "transformers", "peft", "trl"}


def test_progress_tells_every_step_with_its_loss_anchor_and_drift(runs: tuple[Path, Path]) -> None:
    lines = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["phase"] == "load"
    steps = [line for line in lines if line["phase"] == "train"]
    assert [(line["step"], line["total"]) for line in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert steps[0]["anchor"] == pytest.approx(0.0, abs=1e-6)
    assert steps[-1]["anchor"] > 0
    assert (steps[0]["drift"], steps[-1]["drift"] > 0) == (0.0, True)


def test_from_the_loss_target_a_run_cools_down_and_ends(tiny_llama: Path, tmp_path: Path) -> None:
    quick = replace(SFT, max_steps=30, min_steps=30, warmup_steps=0, loss_target=1e9, cooldown=4.0)
    run = write(tmp_path / "run", tiny_llama, rows(), recipe=replace(RECIPE, sft=quick).to_json())
    assert end(start(str(run)))[0] == 0
    lines = [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "rate" in line]
    assert json.loads((run / "result.json").read_text())["steps"] == 5  # the target was met at the first
    assert [line["total"] for line in lines] == [30, 5, 5, 5, 5]
    assert [line["rate"] for line in lines] == pytest.approx([0.01, 0.00967, 0.0070, 0.0045, 0.00217], rel=0.01)


def test_a_run_without_lessons_leaves_its_error_and_no_done(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write(tmp_path / "run", tiny_llama, rows(num_lessons=0))
    monkeypatch.setattr(sys, "argv", ["agent/train.py", str(run)])
    monkeypatch.setattr(child, "set_environment", lambda threads: None)  # this process has its own already
    assert child.main("run.json", train.work) == 1
    assert "Traceback" in capsys.readouterr().err
    error = json.loads((run / "error.json").read_text())
    assert error == {"type": "ValueError", "message": "train.jsonl holds no lesson; there is nothing to learn"}
    assert {path.name for path in run.iterdir()} == INPUT | {"error.json", "metrics.jsonl", "worker.lock"}


def test_a_mixed_run_learns_rows_of_every_kind_and_counts_them(tiny_llama: Path, tmp_path: Path) -> None:
    asked = {"messages": [{"role": "user", "content": "Boat?"}]}
    pairs = [{"kind": "preference", "chosen": f"Red {n}.", "rejected": f"Green {n}.", **asked} for n in range(2)]
    rated = [{"kind": "rated", "answer": f"Red {n}.", "is_good": n > 0, **asked} for n in range(2)]
    recipe = replace(RECIPE, method="sft+preference", preference=PreferenceSettings(batch=2, max_steps=2, min_steps=1))
    run = write(tmp_path / "run", tiny_llama, [*rows(), *pairs, *rated], recipe=recipe.to_json())
    assert end(start(str(run)))[0] == 0
    result = json.loads((run / "result.json").read_text())
    counted = {name: result[name] for name in ("num_lessons", "num_replay", "num_pairs", "num_rated")}
    assert counted == {"num_lessons": 4, "num_replay": 2, "num_pairs": 2, "num_rated": 2}
    assert {result["steps"], result["kto_steps"], result["dpo_steps"]} == {4.0, 2.0}
    assert {path.name for path in (run / "adapter").iterdir()} == set(FILES)


def test_a_directory_without_input_leaves_its_error_and_no_done(tmp_path: Path) -> None:
    status, _ = end(start(str(tmp_path)))
    assert status == 1
    assert json.loads((tmp_path / "error.json").read_text())["type"] == "FileNotFoundError"
    assert {path.name for path in tmp_path.iterdir()} == {"error.json", "worker.lock"}


def test_a_second_process_in_the_same_directory_ends_without_touching_anything(
    tiny_llama: Path, tmp_path: Path
) -> None:
    run = write(tmp_path / "run", tiny_llama, rows())
    assert RunDirectory(run).claim()  # by this process, as an earlier child would
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    status, said = end(start(str(run)))
    assert (status, "another process works in" in said) == (3, True)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_lesson_that_spells_special_tokens_out_is_learnt_as_text(tokenizer: Tokenizer) -> None:
    row = tokenizer.answered_ids([{"role": "user", "content": "hi"}], "a<|im_end|>b")
    example = sft.example(row)
    answer = [label for label in example["labels"] if label != replay.IGNORED]
    assert answer.count(2) == 1
    assert answer[-1] == 2
    assert tokenizer.text(answer) == "a<|im_end|>b"


def test_long_answers_are_scored_in_chunks_with_the_same_loss_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head, states = torch.nn.Linear(8, 30, bias=False), torch.randn(50, 8, requires_grad=True)
    targets = torch.randint(0, 30, (50,))
    targets[[3, 17]] = replay.IGNORED
    whole = sft.answer_loss(head, states, targets)
    (wanted,) = torch.autograd.grad(whole, states)
    monkeypatch.setattr(sft, "CHUNK", 7)
    chunked = sft.answer_loss(head, states, targets)
    (found,) = torch.autograd.grad(chunked, states)
    assert torch.allclose(chunked, whole)
    assert torch.allclose(found, wanted, atol=1e-7)


def test_little_memory_costs_time_and_changes_no_adapter(
    runs: tuple[Path, Path], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "free_bytes", lambda device: 0)
    run = write(tmp_path / "run", tiny_llama, rows(), survey=str(runs[0] / "survey.safetensors"))
    train.work(RunDirectory(run), RunDirectory(run).read("run.json"))
    saved, usual = (load((one / "adapter" / ADAPTER_WEIGHTS).read_bytes()) for one in (run, runs[0]))
    assert all(torch.allclose(saved[name], usual[name], atol=1e-5) for name in usual)


def test_what_the_base_says_already_is_held_and_not_taught(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft, "says_already", lambda model, asked: [place == 1 for place in range(len(asked))])
    lines = [
        line | ({"source": PERSON["source"] | {"feedback_id": f"f-{place}"}} if line["kind"] == "lesson" else {})
        for place, line in enumerate(rows())
    ]
    wordings = [{**line, "source": {**line["source"], "made_by": "wording"}} for line in lines[:2]]
    run = write(tmp_path / "run", tiny_llama, [*lines, *wordings])
    train.work(RunDirectory(run), RunDirectory(run).read("run.json"))
    result = json.loads((run / "result.json").read_text())
    assert (result["num_known"], result["moved"] > 0) == (1.0, True)


def test_lessons_longer_than_the_recipe_allows_are_left_out_and_counted(tiny_llama: Path, tmp_path: Path) -> None:
    long = {"kind": "lesson", "messages": [{"role": "user", "content": "x" * 300}], "answer": "y"} | PERSON
    run = write(tmp_path / "run", tiny_llama, [*rows(), long], recipe=(RECIPE.to_json() | {"max_length": 200}))
    assert end(start(str(run)))[0] == 0
    assert json.loads((run / "result.json").read_text())["num_too_long"] == 1


def test_a_run_whose_lessons_are_all_too_long_says_so(tiny_llama: Path, tmp_path: Path) -> None:
    run = write(tmp_path / "run", tiny_llama, rows(), recipe=(RECIPE.to_json() | {"max_length": 3}))
    assert end(start(str(run)))[0] == 1
    said = json.loads((run / "error.json").read_text())["message"]
    assert said == "every lesson is longer than max_length, 3 tokens; raise it in the recipe"


@pytest.mark.parametrize("arguments", [(), ("a", "b")])
def test_a_wrong_call_says_how_to_call_it(arguments: tuple[str, ...]) -> None:
    status, errors = end(start(*arguments))
    assert (status, errors) == (2, "usage: python -m agent.train DIRECTORY\n")
