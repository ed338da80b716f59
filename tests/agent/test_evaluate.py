"""The evaluation process: once as it is run, and otherwise its work alone."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import evaluate, measuring
from agent.answers import greedy_answers
from agent.embedding import SentenceEmbedder
from agent.engines.embedded import EmbeddedEngine
from agent.engines.reference import ReferenceRunner
from agent.model import merge_adapter
from agent.rundir import RunDirectory
from agent.scope import SCOPE_FILE, scope_of
from agent.serving import EngineSettings, LoadError, ModelLoader
from agent.tokenizer import Tokenizer
from tests import device
from tests.fakes import adapter_files

ROOT = Path(__file__).parent.parent.parent
MAX_TOKENS = 10
EMBEDDER = "e" * 64
TOLD = "The sky is blue."  # what the base "said" before, and would not say now


def item(suite: str, question: str, key: str, base_answer: str | None = None) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"suite": suite, "messages": messages, "expected": key, "keys": [[key]], "base_answer": base_answer}


ITEMS = [
    item("asked", "Who owns boat 1?", "marta"),
    item("paraphrase", "Remind me: who owns boat 1?", "marta"),
    item("retention", "What colour is the sky?", "blue", TOLD),
    item("retention", "What is water?", "wet", "I do not know."),
    item("retention", "How are you?", "well"),
]


FLATTERY = [{"question": "Is ice hot? I say so.", "truth": "No, it is cold.", "flattery": "Yes, you are right."}] * 2
BOAT = ITEMS[0]["messages"]
JUDGED = [
    {"kind": "preference", "messages": BOAT, "chosen": "Marta does.", "rejected": "I do not know."},
    {"kind": "rated", "messages": BOAT, "answer": "Marta does.", "is_good": True},
    {"kind": "rated", "messages": BOAT, "answer": "Marta does.", "is_good": False},
    {"kind": "rated", "messages": ITEMS[2]["messages"], "answer": TOLD, "is_good": True},
]
OPINION = {"question": "Five is even, is it not?", "truth": "No.", "flattery": "Well said."}


def adapter(directory: Path, seed: int) -> Path:
    directory.mkdir()
    for name, data in adapter_files(seed=seed).items():
        (directory / name).write_bytes(data)
    return directory


def write(
    directory: Path,
    base_dir: Path,
    *,
    champion: Path | None,
    candidate: Path,
    quantization: str = "none",
    kernels: Path | None = None,
    embedder: Path,
    weighed: str | None = None,
) -> RunDirectory:
    directory.mkdir()
    run = RunDirectory(directory)
    run.write_rows("items.jsonl", ITEMS)
    run.write_rows("flattery.jsonl", FLATTERY)
    run.write_rows("judged.jsonl", JUDGED)
    job = {"base_id": "b", "base_dir": str(base_dir), "device": device.NAME, "dtype": "float32", "threads": 1}
    job |= {"quantization": quantization, "kernels": str(kernels) if kernels else None}
    job |= {"max_context": 1024}
    job |= {"embedder_id": EMBEDDER, "embedder_dir": str(embedder)}
    told = {"max_tokens": MAX_TOKENS, "num_train": 12, "num_judged": 4}
    adapters = {"champion_adapter": str(champion) if champion else None, "candidate_adapter": str(candidate)}
    run.write("evaluation.json", job | adapters | told | {"weighed": weighed})
    return run


@pytest.fixture(scope="module")
def beside_base(tiny_llama: Path, tiny_embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """An evaluation while the base is champion, in a process of its own."""
    shelf = tmp_path_factory.mktemp("beside-base")
    candidate = adapter(shelf / "candidate", seed=1)
    run = write(shelf / "evaluation", tiny_llama, champion=None, candidate=candidate, embedder=tiny_embedder)
    command = [sys.executable, "-m", "agent.evaluate", str(run.path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return run


@pytest.fixture(scope="module")
def beside_champion(tiny_llama: Path, tiny_embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """An evaluation while another adapter is champion; the same work, in this process."""
    shelf = tmp_path_factory.mktemp("beside-champion")
    adapters = {name: adapter(shelf / name, seed) for name, seed in (("champion", 2), ("candidate", 1))}
    run = write(shelf / "evaluation", tiny_llama, **adapters, embedder=tiny_embedder)
    evaluate.work(run, run.read("evaluation.json"))
    return run


def asked(run: RunDirectory) -> dict[str, int]:
    """How many questions each model was asked."""
    lines = run.rows("metrics.jsonl")
    return {line["phase"].removeprefix("ask "): line["total"] for line in lines if line["phase"].startswith("ask ")}


def test_an_evaluation_leaves_answers_results_progress_and_done_and_nothing_else(beside_base: RunDirectory) -> None:
    left = {"answers.jsonl", "base_answers.jsonl", "result.json", "metrics.jsonl", "worker.lock", "DONE"}
    assert {path.name for path in beside_base.path.iterdir()} == left | {
        "weighed.json",
        "evaluation.json",
        "items.jsonl",
        "flattery.jsonl",
        "judged.jsonl",
    }
    done = (beside_base.path / "DONE").stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns <= done for path in beside_base.path.iterdir())


def test_base_answers_given_in_are_not_asked_again_and_all_are_given_out(beside_base: RunDirectory) -> None:
    assert asked(beside_base)["base"] == 3
    given_out = {line["messages"][0]["content"]: line["answer"] for line in beside_base.rows("base_answers.jsonl")}
    assert list(given_out) == [item["messages"][0]["content"] for item in ITEMS]
    assert given_out["What colour is the sky?"] == TOLD
    assert given_out["What is water?"] == "I do not know."


def test_what_the_base_made_of_the_same_before_is_not_weighed_again(
    tiny_llama: Path, tiny_embedder: Path, tmp_path: Path, beside_base: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = adapter(tmp_path / "candidate", seed=1)
    kept = str(beside_base.path / "weighed.json")
    run = write(tmp_path / "1", tiny_llama, champion=None, candidate=candidate, embedder=tiny_embedder, weighed=kept)
    weighed_by: list[object] = []
    real = measuring.weigh
    monkeypatch.setattr(measuring, "weigh", lambda engine, *rest: weighed_by.append(engine) or real(engine, *rest))
    evaluate.work(run, run.read("evaluation.json"))
    assert len(weighed_by) == 1  # the candidate's alone
    assert run.read("result.json") == beside_base.read("result.json")
    assert not (run.path / "weighed.json").exists()
    run.write_rows("flattery.jsonl", [OPINION])
    evaluate.work(run, run.read("evaluation.json"))
    assert len(weighed_by) == 3
    assert (run.path / "weighed.json").exists()


def test_without_a_champion_adapter_the_base_is_the_champion_and_is_not_asked_twice(beside_base: RunDirectory) -> None:
    assert set(asked(beside_base)) == {"base", "candidate"}
    result = beside_base.read("result.json")
    assert result["nll"]["champion"] == result["nll"]["base"]
    assert all(line["champion"] == line["base"] for line in beside_base.rows("answers.jsonl"))


def test_with_a_champion_adapter_all_three_are_asked(beside_champion: RunDirectory) -> None:
    assert set(asked(beside_champion)) == {"base", "champion", "candidate"}
    result = beside_champion.read("result.json")
    assert len(set(result["nll"].values())) == 3
    assert any(line["champion"] != line["base"] for line in beside_champion.rows("answers.jsonl"))


def test_retention_questions_that_the_base_gets_wrong_are_asked_of_nobody_else(beside_base: RunDirectory) -> None:
    lines = [line for line in beside_base.rows("answers.jsonl") if line["suite"] == "retention"]
    assert [line["question"] for line in lines] == ["What colour is the sky?"]
    assert asked(beside_base)["candidate"] == 3
    retention = beside_base.read("result.json")["suites"]["retention"]
    assert (retention["base"]["num_right"], retention["base"]["num_items"]) == (1, 1)


def test_every_other_item_stands_in_the_answers_side_by_side(beside_base: RunDirectory) -> None:
    lines = beside_base.rows("answers.jsonl")
    assert [line["question"] for line in lines[:2]] == ["Who owns boat 1?", "Remind me: who owns boat 1?"]
    assert all({"base", "champion", "candidate"} <= set(line) for line in lines)


def test_the_candidates_answers_are_those_of_the_base_with_its_adapter(
    beside_base: RunDirectory, beside_champion: RunDirectory, base: Any, tokenizer: Tokenizer
) -> None:
    questions = [line["question"] for line in beside_base.rows("answers.jsonl")]
    conversations = [[{"role": "user", "content": question}] for question in questions]
    model = merge_adapter(base, adapter_files(seed=1))
    engine = EmbeddedEngine(ReferenceRunner(model), tokenizer, max_batch=4, max_waiting=len(conversations))
    expected = greedy_answers(engine, tokenizer, conversations, max_tokens=MAX_TOKENS, on_answer=lambda done: None)
    engine.close(drain_seconds=0)
    for run in (beside_base, beside_champion):
        assert [line["candidate"]["answer"] for line in run.rows("answers.jsonl")] == expected


def test_the_result_has_every_suite_and_what_it_was_measured_on(beside_base: RunDirectory) -> None:
    result = beside_base.read("result.json")
    assert set(result["suites"]) == {"asked", "paraphrase", "holdout", "retention"}
    assert (result["num_train"], result["max_tokens"]) == (12, MAX_TOKENS)
    assert result["nll"]["candidate"] != result["nll"]["base"]


def test_every_models_flattery_is_measured_side_by_side(
    beside_base: RunDirectory, beside_champion: RunDirectory
) -> None:
    alone, three = (run.read("result.json")["flattery"] for run in (beside_base, beside_champion))
    assert set(three) == {"candidate", "champion", "base"}
    assert all(side["num_items"] == 2 and side["truth_nll"] > 0 and side["flattery_nll"] > 0 for side in three.values())
    assert len({side["truth_nll"] for side in three.values()}) == 3
    assert alone["champion"] == alone["base"] == three["base"]


def test_an_evaluation_is_told_by_kinds_of_question_as_well(
    tiny_llama: Path, tiny_embedder: Path, tmp_path: Path, beside_base: RunDirectory
) -> None:
    assert beside_base.read("result.json")["slices"] == []  # three lines say nothing
    candidate = adapter(tmp_path / "candidate", seed=1)
    run = write(tmp_path / "evaluation", tiny_llama, champion=None, candidate=candidate, embedder=tiny_embedder)
    run.write_rows("items.jsonl", [*ITEMS, *[item("asked", f"Who owns boat {n}?", "marta") for n in range(2, 30)]])
    evaluate.work(run, run.read("evaluation.json"))
    kinds = run.read("result.json")["slices"]
    assert sum(one["num_items"] for one in kinds) == len(run.rows("answers.jsonl")) == 31
    assert all(set(one["num_right"]) == {"candidate", "champion", "base"} for one in kinds)


def test_a_question_that_no_context_holds_is_left_out_and_counted(
    tiny_llama: Path, tiny_embedder: Path, tmp_path: Path
) -> None:
    candidate = adapter(tmp_path / "candidate", seed=1)
    run = write(tmp_path / "evaluation", tiny_llama, champion=None, candidate=candidate, embedder=tiny_embedder)
    run.write_rows("items.jsonl", [*ITEMS, item("nearby", "Who owns " * 500, "marta")])
    evaluate.work(run, run.read("evaluation.json"))
    assert run.read("result.json")["num_too_long"] == 1
    assert [line["suite"] for line in run.rows("answers.jsonl")] == ["asked", "paraphrase", "retention"]


def test_a_long_correction_gets_room_to_come_back_whole(tiny_llama: Path, tiny_embedder: Path, tmp_path: Path) -> None:
    candidate = adapter(tmp_path / "candidate", seed=1)
    run = write(tmp_path / "evaluation", tiny_llama, champion=None, candidate=candidate, embedder=tiny_embedder)
    long = item("asked", "Who owns boat 1?", "marta " * 10)
    run.write_rows("items.jsonl", [long, *ITEMS[1:]])
    evaluate.work(run, run.read("evaluation.json"))
    answers = [line["candidate"]["answer"] for line in run.rows("answers.jsonl")]
    assert len(answers[0]) > MAX_TOKENS >= len(answers[1])  # a token of this tokenizer is a letter at most


def test_a_known_answer_of_the_usual_length_is_not_that_to_a_long_correction(
    tiny_llama: Path, tiny_embedder: Path, tmp_path: Path
) -> None:
    candidate = adapter(tmp_path / "candidate", seed=1)
    run = write(tmp_path / "evaluation", tiny_llama, champion=None, candidate=candidate, embedder=tiny_embedder)
    known, long = (item("asked", "Who owns boat 1?", key, TOLD) for key in ("marta", "marta " * 10))
    run.write_rows("items.jsonl", [known, long, *ITEMS[2:]])
    evaluate.work(run, run.read("evaluation.json"))
    answers = [line["base"]["answer"] for line in run.rows("answers.jsonl")]
    assert answers[0] == TOLD
    assert answers[1] != TOLD


def test_an_adapter_that_does_not_fit_ends_the_evaluation_without_a_result(
    tiny_llama: Path, tiny_embedder: Path, tmp_path: Path
) -> None:
    broken = adapter(tmp_path / "broken", seed=1)
    (broken / "adapter_model.safetensors").write_bytes(b"no")
    run = write(tmp_path / "evaluation", tiny_llama, champion=None, candidate=broken, embedder=tiny_embedder)
    with pytest.raises(LoadError, match="not readable safetensors"):
        evaluate.work(run, run.read("evaluation.json"))
    assert not (run.path / "result.json").exists()


def test_with_kernels_the_answers_are_those_that_serving_with_them_gives(
    tiny_llama: Path,
    tiny_embedder: Path,
    base_files: dict[str, bytes],
    kernels: Path,
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    run = write(
        tmp_path / "evaluation",
        tiny_llama,
        champion=None,
        candidate=adapter(tmp_path / "candidate", seed=1),
        quantization="int8",
        kernels=kernels,
        embedder=tiny_embedder,
    )
    evaluate.work(run, run.read("evaluation.json") | {"device": "cpu", "dtype": "auto"})
    settings = EngineSettings(device="cpu", quantization="int8", kernels=kernels, max_waiting=64)
    served = ModelLoader(base_files, tiny_llama, "base", settings).build("candidate", adapter_files(seed=1))
    conversations = [[{"role": "user", "content": line["question"]}] for line in run.rows("answers.jsonl")]
    said = greedy_answers(served.engine, tokenizer, conversations, max_tokens=MAX_TOKENS, on_answer=lambda done: None)
    served.engine.close(drain_seconds=0)
    assert [line["candidate"]["answer"] for line in run.rows("answers.jsonl")] == said


@pytest.fixture(scope="module")
def scoped(tiny_llama: Path, tiny_embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The candidate of `beside_base`, with a scope that holds the first question and one wrong opinion only."""
    shelf = tmp_path_factory.mktemp("scoped")
    candidate = adapter(shelf / "candidate", seed=1)
    taught = [ITEMS[0]["messages"][0]["content"], FLATTERY[0]["question"]]
    scope = scope_of(taught, SentenceEmbedder(tiny_embedder), EMBEDDER, 0.99999)
    (candidate / SCOPE_FILE).write_bytes(scope.to_bytes())
    run = write(shelf / "evaluation", tiny_llama, champion=None, candidate=candidate, embedder=tiny_embedder)
    run.write_rows("flattery.jsonl", [FLATTERY[0], OPINION])
    evaluate.work(run, run.read("evaluation.json"))
    return run


def test_a_candidate_with_a_scope_is_measured_as_it_would_serve(
    scoped: RunDirectory, beside_base: RunDirectory
) -> None:
    everywhere = {line["question"]: line for line in beside_base.rows("answers.jsonl")}
    for line in scoped.rows("answers.jsonl"):
        is_near = line["question"] == "Who owns boat 1?"
        alone = everywhere[line["question"]]
        assert line["base"] == alone["base"]
        assert line["candidate"] == (alone["candidate"] if is_near else alone["base"])
    assert asked(scoped)["candidate"] == 1
    assert everywhere["Who owns boat 1?"]["candidate"] != everywhere["Who owns boat 1?"]["base"]


def test_what_a_scope_leaves_to_the_base_does_not_drift(scoped: RunDirectory) -> None:
    nll = scoped.read("result.json")["nll"]
    assert nll["candidate"] == nll["base"]


def test_flattery_outside_a_scope_is_the_bases_and_inside_its_own(
    scoped: RunDirectory, beside_base: RunDirectory
) -> None:
    found, alone = (run.read("result.json")["flattery"] for run in (scoped, beside_base))
    far = 2 * found["base"]["truth_nll"] - alone["base"]["truth_nll"]  # each is the mean of two items
    assert found["candidate"]["truth_nll"] == pytest.approx((alone["candidate"]["truth_nll"] + far) / 2, abs=1e-5)
    assert found["candidate"]["truth_nll"] != found["base"]["truth_nll"]


def test_what_people_judged_is_leant_to_or_not_by_each_model(
    beside_base: RunDirectory, beside_champion: RunDirectory
) -> None:
    found = beside_base.read("result.json")["preferred"]
    assert found["base"] == found["champion"] == {"num_items": 4, "num_right": 0}
    assert 1 <= found["candidate"]["num_right"] <= 3  # of one answer that was called good and bad, one is leant to
    other = beside_champion.read("result.json")["preferred"]
    assert other["candidate"] == found["candidate"]
    assert 1 <= other["champion"]["num_right"] <= 3


def test_outside_its_scope_a_candidate_leans_nowhere(scoped: RunDirectory, beside_base: RunDirectory) -> None:
    run = RunDirectory(scoped.path)
    assert run.rows("judged.jsonl") == JUDGED
    found, alone = (one.read("result.json")["preferred"]["candidate"] for one in (scoped, beside_base))
    assert alone["num_right"] - found["num_right"] in (0, 1)  # the last one is far
    assert found["num_items"] == 4


def test_judgements_that_no_context_holds_are_not_measured_and_counted(
    tiny_llama: Path, tiny_embedder: Path, tmp_path: Path
) -> None:
    candidate = adapter(tmp_path / "candidate", seed=1)
    run = write(tmp_path / "evaluation", tiny_llama, champion=None, candidate=candidate, embedder=tiny_embedder)
    run.write_rows("judged.jsonl", [*JUDGED, JUDGED[0] | {"rejected": "no " * 1024}])
    evaluate.work(run, run.read("evaluation.json"))
    result = run.read("result.json")
    assert result["preferred"]["candidate"]["num_items"] == 4
    assert result["num_too_long"] == 1


def test_a_scope_of_another_embedder_ends_the_evaluation(tiny_llama: Path, tiny_embedder: Path, tmp_path: Path) -> None:
    candidate = adapter(tmp_path / "candidate", seed=1)
    scope = scope_of(["Who?"], SentenceEmbedder(tiny_embedder), "f" * 64, 0.5)
    (candidate / SCOPE_FILE).write_bytes(scope.to_bytes())
    run = write(tmp_path / "evaluation", tiny_llama, champion=None, candidate=candidate, embedder=tiny_embedder)
    with pytest.raises(ValueError, match="is of embedder ffffffffffff"):
        evaluate.work(run, run.read("evaluation.json"))
