"""What the base does on everyday prompts, layer by layer: measured once for a base, and used by every run on it.

`inputs` says which directions the base reads there, `outputs` which it depends on: a layer whose output moves by d
changes the model's distribution by about ½ dᵀ·G·d nats, where G is the second moment of the gradient at that output
(Fisher's information). Together they make K-FAC's picture (Martens and Grosse 2015) of the KL to the base. `states` are
the last hidden states of the base's own answers, from which its distributions follow exactly.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from agent import suites
from agent.hooks import fed_by, felt_by
from agent.moments import Moment, Sketches
from agent.replay import collate, hidden_states, row_key
from agent.tokenizer import AnsweredIds, Tokenizer

ROWS_TOGETHER = 12
RANK = 128
SEED = 17
FORMAT = "1"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Survey:
    """Moments by the name of a linear layer in the decoder; layers fed the same tensor share one `inputs` moment.
    A layer that no row went through (an expert never chosen) is missing. `states` by `replay.row_key`.
    """

    inputs: Mapping[str, Moment]
    outputs: Mapping[str, Moment]
    states: Mapping[str, torch.Tensor]


def everyday_rows(tokenizer: Tokenizer, answer_tokens: int) -> list[AnsweredIds]:
    """The shipped everyday prompts, with the beginnings of their answers."""
    return [
        tokenizer.answered_ids([{"role": "user", "content": item["question"]}], item["answer"], answer_tokens)
        for item in suites.load("everyday")
    ]


def survey_of(
    model: PreTrainedModel,
    rows: Sequence[AnsweredIds],
    base_id: str,
    kept: Path | None,
    made: Path,
    progress: Progress = lambda done, of: None,
) -> Survey:
    """The survey kept at `kept`, if it is of these rows of this base; else a new one, left at `made`."""
    key = survey_key(base_id, str(model.dtype), rows)
    found = load_survey(kept, key) if kept else None
    if found is None:
        save_survey(survey(model, rows, SEED, progress), made, key)
        found = load_survey(made, key)  # rounded as it will be next time: the same run gives the same adapter
    if found is None:
        raise ValueError(f"{made} was changed while it was read; train again")
    return found


def survey_key(base_id: str, dtype: str, rows: Sequence[AnsweredIds]) -> str:
    """Names the survey that these rows of this base would give."""
    parts = [FORMAT, str(RANK), str(SEED), base_id, dtype, *map(row_key, rows)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def survey(
    model: PreTrainedModel, rows: Sequence[AnsweredIds], seed: int, progress: Progress = lambda done, of: None
) -> Survey:
    """One pass forward and back over the rows, about three times as long as reading them.

    The gradients are of the loss on tokens that the model draws itself: those of the rows would tell how wrong it is on
    them, not what moves it. The same seed gives the same survey on one machine.
    """
    fed, felt = Sketches(RANK, seed), Sketches(RANK, seed + 1)
    drawn = torch.Generator(model.device).manual_seed(seed)
    states: dict[str, torch.Tensor] = {}
    num_read = num_decided = 0
    with fed_by(model, fed.add) as leaders, felt_by(model, felt.add):
        for start in range(0, len(rows), ROWS_TOGETHER):
            group = rows[start : start + ROWS_TOGETHER]
            batch = collate(group)
            decided = hidden_states(model, batch)
            _draw(model, decided, drawn).backward()
            parts = decided.detach().split([row.num_decided for row in group])
            states |= {row_key(row): part.cpu().clone() for row, part in zip(group, parts, strict=True)}
            num_read += batch.layout.ids.shape[1]
            num_decided += len(decided)
            progress(min(start + ROWS_TOGETHER, len(rows)), len(rows))
    of_leader = fed.moments(num_read)
    inputs = {name: of_leader[leader] for name, leader in leaders.items()}
    return Survey(inputs, felt.moments(num_decided), states)


def _draw(model: PreTrainedModel, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The summed loss on tokens drawn where `states` decide them."""
    logits = model.get_output_embeddings()(states).float()
    chances = torch.softmax(logits.detach(), dim=-1)
    tokens = torch.multinomial(chances, 1, generator=generator)[:, 0]
    return torch.nn.functional.cross_entropy(logits, tokens, reduction="sum")


def save_survey(survey: Survey, path: Path, key: str) -> None:
    """One safetensors file that names the key it answers to."""
    leaders: dict[int, str] = {}
    fed = {name: leaders.setdefault(id(moment), name) for name, moment in survey.inputs.items()}
    tensors = {f"states/{name}": states for name, states in survey.states.items()}
    for side, moments in (
        ("inputs", {name: survey.inputs[name] for name in leaders.values()}),
        ("outputs", survey.outputs),
    ):
        for name, moment in moments.items():
            tensors[f"{side}/{name}/vectors"] = moment.vectors.to(torch.bfloat16)
            tensors[f"{side}/{name}/values"] = torch.cat([moment.values, torch.tensor([moment.rest])])
    save_file(tensors, path, {"key": key, "fed": json.dumps(fed)})


def load_survey(path: Path, key: str) -> Survey | None:
    """The survey kept at `path`; None when it answers to another key (of another base, of other rows), is gone or is
    damaged: it can be made again.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            if told.get("key") != key:
                return None
            fed = json.loads(told["fed"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        of_leader = {name: _moment(tensors, f"inputs/{name}") for name in set(fed.values())}
        sides = {name.split("/")[1] for name in tensors if name.startswith("outputs/")}
        outputs = {name: _moment(tensors, f"outputs/{name}") for name in sorted(sides)}
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    return Survey(
        inputs={name: of_leader[leader] for name, leader in fed.items()},
        outputs=outputs,
        states={name.removeprefix("states/"): value for name, value in tensors.items() if name.startswith("states/")},
    )


def _moment(tensors: Mapping[str, torch.Tensor], prefix: str) -> Moment:
    values = tensors[f"{prefix}/values"]
    return Moment(tensors[f"{prefix}/vectors"].float(), values[:-1], float(values[-1]))
