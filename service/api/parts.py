"""What the routes need, handed in by the daemon: no globals."""

from collections.abc import Callable
from dataclasses import dataclass

from agent.embedding import SentenceEmbedder
from agent.serving import ModelLoader, Serving
from service.config import Settings
from service.health import Health
from service.metrics import Metrics
from service.teaching import Teaching
from service.turns import Turns


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything the public routes use."""

    settings: Settings
    model_name: str
    started_at: float
    loader: ModelLoader
    serving: Serving
    turns: Turns
    teaching: Teaching
    health: Health
    metrics: Metrics
    embedder: Callable[[], SentenceEmbedder]
