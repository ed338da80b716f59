"""The run directory as the child sees it: whole files, appended progress, DONE last."""

import json
import os
from pathlib import Path

import pytest

from agent.rundir import RunDirectory, assembled


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def test_what_is_written_is_read_back_as_it_was(run: RunDirectory) -> None:
    value = {"question": "Wie heißt du?", "figures": [1, 2.5, None]}
    run.write("result.json", value)
    assert run.read("result.json") == value
    assert "heißt" in (run.path / "result.json").read_text(encoding="utf-8")


def test_rows_are_one_json_object_a_line_and_empty_lines_are_none(run: RunDirectory) -> None:
    rows = [{"text": "two\nlines"}, {"text": "\N{LINE SEPARATOR}"}]
    run.write_rows("rows.jsonl", rows)
    assert len((run.path / "rows.jsonl").read_bytes().splitlines()) == 2
    with (run.path / "rows.jsonl").open("a") as file:
        file.write("\n \n")
    assert run.rows("rows.jsonl") == rows


def test_an_input_that_is_no_object_is_refused_by_name(run: RunDirectory) -> None:
    (run.path / "run.json").write_text("[1]")
    with pytest.raises(TypeError, match=r"run\.json holds list; expected an object"):
        run.read("run.json")


def test_a_figure_that_json_does_not_know_is_refused_and_leaves_the_old_file(run: RunDirectory) -> None:
    run.write("result.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write("result.json", {"loss": float("nan")})
    assert run.read("result.json") == {"loss": 1.0}


def test_a_directory_appears_whole_in_place_of_the_old_one(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with assembled(tmp_path / "run") as run:
            run.write("result.json", {"text": text})
    assert RunDirectory(tmp_path / "run").read("result.json") == {"text": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_directory_is_replaced_in_renames_only_and_what_a_kill_left_between_them_is_cleared(tmp_path: Path) -> None:
    for name in (".run.old", ".run.new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text("{}")
    with assembled(tmp_path / "run") as run:
        run.write("result.json", {"text": "new"})
    assert RunDirectory(tmp_path / "run").read("result.json") == {"text": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_directory_that_could_not_be_filled_leaves_nothing_and_the_old_one_stands(tmp_path: Path) -> None:
    with assembled(tmp_path / "run") as run:
        run.write("result.json", {"text": "old"})
    with pytest.raises(ValueError, match="JSON"), assembled(tmp_path / "run") as run:
        run.write("result.json", {"text": float("nan")})
    assert RunDirectory(tmp_path / "run").read("result.json") == {"text": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_directory_has_one_worker_and_tells_which(run: RunDirectory) -> None:
    assert run.worker() is None
    assert run.claim()
    assert run.worker() == os.getpid()
    assert not run.claim()


def test_writing_leaves_no_temporary_file(run: RunDirectory) -> None:
    run.write("result.json", {})
    run.write_rows("rows.jsonl", [])
    run.done()
    assert sorted(path.name for path in run.path.iterdir()) == ["DONE", "result.json", "rows.jsonl"]


def test_progress_is_appended_with_the_time_and_the_figures(run: RunDirectory) -> None:
    run.progress("load", 0, 1)
    run.progress("train", 1, 4, loss=2.5)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["step"], line["total"]) for line in lines] == [("load", 0, 1), ("train", 1, 4)]
    assert lines[1]["loss"] == 2.5
    assert lines[0]["at"] <= lines[1]["at"]


def test_files_and_the_folders_they_are_in_are_synced_before_done_stands(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.path / "adapter" / "parts").mkdir(parents=True)
    (run.path / "adapter" / "parts" / "weights").write_bytes(b"w")
    real, synced = os.fsync, []

    def sync(descriptor: int) -> None:
        assert not (run.path / "DONE").exists() or run.path.samefile(f"/proc/self/fd/{descriptor}")
        synced.append(os.stat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    run.done()
    for name in (".", "adapter", "adapter/parts", "adapter/parts/weights"):
        assert (run.path / name).stat().st_ino in synced, name


def test_done_is_an_empty_file_written_after_everything_else(run: RunDirectory) -> None:
    (run.path / "adapter").mkdir()
    (run.path / "adapter" / "weights").write_bytes(b"w")
    run.write("result.json", {})
    run.done()
    assert (run.path / "DONE").read_bytes() == b""
    newest = max(run.path.rglob("*"), key=lambda path: (path.stat().st_mtime_ns, path.name == "DONE"))
    assert newest.name in ("DONE", run.path.name)
