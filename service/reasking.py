"""What answers now is asked again before people are: the doubt in the log may be that of a checkpoint before it."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from agent.doubts import Doubts
from agent.embedding import EmbedderError, Vectors
from agent.engine import EngineBusy, EngineClosed
from agent.lesson_rows import plain
from agent.scope import last_asked
from agent.served import ServedModel
from agent.serving import Serving
from agent.tokenizer import Tokenizer
from store.records import Interaction

log = structlog.get_logger()

MAX_PROMPT = 512  # tokens; of what is longer the logged doubt has to do
MIN_TOKENS, MAX_TOKENS = 16, 256  # of an answer
MAX_SECONDS = 15.0  # a round
PAUSE_SECONDS = 0.1
MAX_KNOWN = 1_000  # doubts of one model: then it has had its look at what was logged before it


@dataclass(frozen=True, slots=True)
class Doubt:
    """How unsure a checkpoint is of its answer, in the unit of what tells."""

    checkpoint_id: str
    uncertainty: float


class AskedAgain(Protocol):
    """What those who choose questions need to know of whoever would answer them now."""

    @property
    def is_as_logged(self) -> bool:
        """Whether doubts can stand beside those in the log."""

    @property
    def known(self) -> Mapping[int, Doubt]:
        """What is doubted now, by the keys of questions."""

    def ask(self, rows: Iterable[tuple[int, Interaction | None, Vectors]]) -> int:
        """Ask what is worth it of these keys, interactions and unit vectors (dim,); how many it came through."""


class Reasking:
    """One question at a time, while people ask nothing. Remembers doubts by question, until another model serves."""

    def __init__(
        self,
        serving: Serving,
        tokenizer: Tokenizer,
        doubts: Doubts,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._serving = serving
        self._tokenizer = tokenizer
        self._doubts = doubts
        self._clock = clock
        self._sleep = sleep
        self._of = serving.num_swaps
        self._known: dict[int, Doubt] = {}

    @property
    def is_as_logged(self) -> bool:
        return self._doubts.is_as_logged

    @property
    def known(self) -> Mapping[int, Doubt]:
        if self._of != self._serving.num_swaps:
            self._of, self._known = self._serving.num_swaps, {}
        return self._known

    def ask(self, rows: Iterable[tuple[int, Interaction | None, Vectors]]) -> int:
        """Ask again what the checkpoint that would answer it has not answered itself, or everything where the log's
        doubts are of another kind: keys, interactions and the unit vectors (dim,) of their questions. Returns how many
        rows it came through before the time was up, so that people are served and a daemon can stop. What can't be
        asked keeps the doubt that was logged.
        """
        until = self._clock() + MAX_SECONDS
        num_done = 0
        for key, interaction, vector in rows:
            while self._serving.num_active() and self._clock() < until:
                self._sleep(PAUSE_SECONDS)
            if self._clock() >= until:
                log.info("questions.not_all_asked_again", num_done=num_done, reason=f"{MAX_SECONDS:g} seconds were up")
                break
            if interaction is not None and key not in self.known and len(self.known) < MAX_KNOWN:
                self._ask(key, interaction, vector)
            num_done += 1
        return num_done

    def _ask(self, key: int, interaction: Interaction, vector: Vectors) -> None:
        if interaction.prompt_tokens > MAX_PROMPT:
            return
        if last_asked(interaction.messages) != interaction.question:  # it is placed by other words than the vector's
            return
        try:
            model = self._serving.current.for_question(vector)
            if model.checkpoint_id == interaction.checkpoint_id and self.is_as_logged:
                return
            doubt = self._doubt(model, interaction)
        except (EngineBusy, EngineClosed, EmbedderError, ValueError) as error:
            log.info("question.not_asked_again", interaction=interaction.id, reason=str(error))
            return
        if doubt is not None:
            self._known[key] = Doubt(model.checkpoint_id, doubt)

    def _doubt(self, model: ServedModel, interaction: Interaction) -> float | None:
        """None where no token was made. As many tokens at most as were logged: signals look at all of an answer."""
        prompt = tuple(self._tokenizer.chat_ids(plain(interaction.messages)))
        if len(prompt) != interaction.prompt_tokens:  # it was no chat, or had tools
            raise ValueError(f"its prompt had {interaction.prompt_tokens} tokens and has {len(prompt)} as a chat")
        max_tokens = min(max(len(interaction.tokens), MIN_TOKENS), MAX_TOKENS)
        return self._doubts.of(model.engine, prompt, max_tokens)
