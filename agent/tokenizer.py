"""Text to token ids and back: chat template, incremental decoding, stop strings. Knows nothing of the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what decoding shows for an unfinished UTF-8 sequence


@dataclass(frozen=True, slots=True)
class AnsweredIds:
    """A conversation and its answer as token ids; the answer begins at `answer_at`."""

    ids: tuple[int, ...]
    answer_at: int

    @property
    def num_decided(self) -> int:
        """Positions at which the model decides on a token of the answer, or on what would come after it."""
        return len(self.ids) - self.answer_at + 1


class Tokenizer:
    """The base model's tokenizer and chat template."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoTokenizer

        self._pieces: dict[int, str] = {}
        self.inner: Any = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        if not self.inner.chat_template:
            raise ValueError(f"{directory} has no chat template; choose an instruction-tuned model")

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        return frozenset({int(self.inner.eos_token_id)})

    def chat_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Token ids of a conversation, ending where the assistant is to speak. Special tokens in the text stay text."""
        chat = [dict(message) for message in messages]
        options = {"add_generation_prompt": True, "return_dict": False, "sanitize_control_tokens": True}
        return list(self.inner.apply_chat_template(chat, **options))

    def ids(self, text: str) -> list[int]:
        """Token ids of plain text. Special tokens in the text stay text: a label must not end a turn or begin one."""
        return list(self.inner(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def answered_ids(
        self,
        messages: Sequence[Mapping[str, Any]],
        answer: str,
        max_answer_tokens: int | None = None,
        given: str = "",
    ) -> AnsweredIds:
        """A conversation with its whole answer and the end of turn, or with the answer's first tokens only. A beginning
        of the answer that is `given` counts as the conversation's, as far as whole tokens go.
        """
        prompt = self.chat_ids(messages)
        said = [*self.ids(answer), *self.eos_ids][:max_answer_tokens]
        pairs = zip(self.ids(given), said[:-1], strict=False)  # one token at least is the answer's
        num_given = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return AnsweredIds((*prompt, *said), len(prompt) + num_given)

    def text(self, ids: Sequence[int]) -> str:
        return str(self._decode(ids, skip_special_tokens=True))

    def piece(self, token_id: int) -> str:
        """One token by itself, as shown beside its logprob."""
        found = self._pieces.get(token_id)
        if found is None:
            found = self._pieces[token_id] = str(self._decode([token_id], skip_special_tokens=False))
        return found

    @cached_property
    def _decode(self) -> Any:
        """The tokenizer's own decoding, without the layers that transformers puts around it: it runs for each token."""
        if self.inner.is_fast:
            return self.inner.backend_tokenizer.decode
        return partial(self.inner.decode, clean_up_tokenization_spaces=False)


class TextStream:
    """Decodes one answer token by token, and holds back text that could still turn into a stop string.

    `push` returns the text that is safe to show; `is_stopped` turns true when a stop string was completed (it and all
    after it is cut). `flush` returns what was held back when the answer ends for another reason.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._decoded = 0  # tokens whose text is already in _pending or shown
        self._pending = ""
        self.is_stopped = False

    def push(self, token_id: int) -> str:
        self._ids.append(token_id)
        self._pending += self._decode_new()
        return self._release()

    def flush(self) -> str:
        """The rest; an unfinished character at the very end shows as the replacement character."""
        if self.is_stopped:
            return ""
        tail = self._tokenizer.text(self._ids[self._context() :])
        known = self._tokenizer.text(self._ids[self._context() : self._decoded])
        out, self._pending = self._pending + tail[len(known) :], ""
        self._decoded = len(self._ids)
        return out

    def _context(self) -> int:
        # A few tokens of context make the decoder treat leading spaces and byte pieces as it would in the whole text.
        return max(0, self._decoded - 4)

    def _decode_new(self) -> str:
        start = self._context()
        known = self._tokenizer.text(self._ids[start : self._decoded])
        whole = self._tokenizer.text(self._ids[start:])
        if whole.endswith(REPLACEMENT):
            return ""
        self._decoded = len(self._ids)
        return whole[len(known) :]

    def _release(self) -> str:
        cuts = [at for at in (self._pending.find(stop) for stop in self._stop) if at >= 0]
        if cuts:
            self.is_stopped = True
            out, self._pending = self._pending[: min(cuts)], ""
            return out
        held = max((_overlap(self._pending, stop) for stop in self._stop), default=0)
        cut = len(self._pending) - held
        out, self._pending = self._pending[:cut], self._pending[cut:]
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
