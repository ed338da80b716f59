"""What the loops of all learning methods share: what TRL's trainers are told, and what is told of their steps."""

import math
from collections import deque
from typing import Any

from transformers import PreTrainedModel, TrainerCallback

from agent.methods import Job
from agent.model import free_bytes

WINDOW = 10  # steps whose mean loss is told: a few lucky batches must not end a run
MEMORY_SHARE = 0.5  # of what is free: what a step may keep for its way back


def arguments(
    job: Job, *, steps: int, batch: int, learning_rate: float, warmup_steps: int, longest: int, together: int
) -> dict[str, Any]:
    """Arguments of any of TRL's trainers. A step takes `together` rows of `longest` tokens at most."""
    device = job.model.device.type
    saves_memory = kept_bytes(job.model, together, longest) > MEMORY_SHARE * free_bytes(job.model.device)
    return {
        "output_dir": job.scratch,
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": warmup_steps,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "max_length": None,  # longer rows were left out
        "seed": job.recipe.seed,
        "logging_steps": 1,
        "save_strategy": "no",  # resuming would need pickled optimizer state; a run is minutes, and starts again
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": saves_memory,  # costs a fifth of the time where rows are short
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if saves_memory else None,
        "dataloader_pin_memory": False,
        "use_cpu": device == "cpu",
    }


def kept_bytes(model: PreTrainedModel, rows: int, longest: int) -> int:
    """About what one step keeps for its way back: of each layer the weights of attention in float32, and what its
    products read.
    """
    config: Any = model.config
    attention = rows * config.num_attention_heads * longest**2 * (4 + model.dtype.itemsize)
    read = rows * longest * (10 * config.hidden_size + 4 * config.intermediate_size) * model.dtype.itemsize
    return int(config.num_hidden_layers * (attention + read))


class Watch(TrainerCallback):  # type: ignore[misc]
    """Reports each step, by the figure that is the trainer's own loss, and ends a run that has lost its way."""

    def __init__(self, job: Job, phase: str, own: str) -> None:
        self.job = job
        self.phase = phase
        self._own = own
        self.smoothed: float | None = None  # none before the first step
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """FloatingPointError when the loss is no number any more."""
        if self._own not in logs:
            return
        loss = logs[self._own]
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss of {self.phase} became {loss} at step {state.global_step}; lower the learning rate"
            )
        self._recent.append(loss)
        self.smoothed = sum(self._recent) / len(self._recent)
        last, told = self.last(state.max_steps), self.told(logs)
        self.job.progress(self.phase, state.global_step, last, loss=loss, smoothed=self.smoothed, **told)
        control.should_training_stop |= self.is_done(state.global_step)

    def told(self, logs: dict[str, float]) -> dict[str, float]:
        """Further figures of a step."""
        return {"anchor": logs.get("anchor", 0.0)}

    def last(self, max_steps: int) -> int:
        """The step that ends the run, as far as is known."""
        return max_steps

    def is_done(self, step: int) -> bool:
        """Whether nothing is left to learn after so many steps."""
        return False
