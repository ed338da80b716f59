"""What answers now is asked again before people are: the doubt in the log may be that of a checkpoint before it."""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from agent.embedding import Vectors
from agent.engine import EngineBusy, EngineClosed, GenerationRequest, Sampling, complete
from agent.lesson_rows import plain
from agent.scope import last_asked
from agent.served import ServedModel
from agent.serving import Serving
from agent.tokenizer import Tokenizer
from agent.uncertainty import signal
from store.records import FinishReason, Interaction, TokenTrace

log = structlog.get_logger()

MAX_PROMPT = 512  # tokens; of what is longer the logged doubt has to do
MAX_TOKENS = 128  # of an answer: its doubt shows soon, and nobody waits for the rest


@dataclass(frozen=True, slots=True)
class Doubt:
    """How unsure a checkpoint is of its answer, in the unit of the signal."""

    checkpoint_id: str
    uncertainty: float


class Reasking:
    """One question at a time, beside what people ask. Remembers its doubts by question, until another model serves."""

    def __init__(self, serving: Serving, tokenizer: Tokenizer, signal_name: str) -> None:
        self._serving = serving
        self._tokenizer = tokenizer
        self._signal = signal(signal_name)
        self._of: ServedModel | None = None
        self._known: dict[int, Doubt] = {}

    @property
    def known(self) -> Mapping[int, Doubt]:
        """What is doubted now, by the keys of questions."""
        if self._of is not self._serving.current:
            self._of, self._known = self._serving.current, {}
        return self._known

    def ask(self, key: int, interaction: Interaction, vector: Vectors) -> None:
        """Ask this again, whose question has that key and unit vector (dim,), unless the checkpoint that would answer
        it is the one that did. What cannot be asked keeps the doubt that was logged.
        """
        if key in self.known or interaction.prompt_tokens > MAX_PROMPT:
            return
        if last_asked(interaction.messages) != interaction.question:  # it is placed by other words than the vector's
            return
        model = self._serving.current.for_question(vector)
        if model.checkpoint_id == interaction.checkpoint_id:
            return
        try:
            doubt = self._doubt(model, interaction)
        except (EngineBusy, EngineClosed, ValueError) as error:
            log.info("question.not_asked_again", interaction=interaction.id, reason=str(error))
            return
        if doubt is not None:
            self._known[key] = Doubt(model.checkpoint_id, doubt)

    def _doubt(self, model: ServedModel, interaction: Interaction) -> float | None:
        """None where no token was made."""
        prompt = tuple(self._tokenizer.chat_ids(plain(interaction.messages)))
        _, tokens, end = complete(model.engine, GenerationRequest(prompt, Sampling(max_tokens=MAX_TOKENS)))
        if end.reason is FinishReason.ERROR:
            raise EngineClosed(end.error or "the engine failed without a word; restart the daemon and report this")
        return self._signal([TokenTrace(token.id, token.logprob, token.entropy) for token in tokens])
