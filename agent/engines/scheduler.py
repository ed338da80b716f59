"""Who is read next: running answers first, then pieces of prompts, then who waits. Knows counts and blocks only.

One step reads one token of every answer under way, and as much of prompts as its budget leaves (chunked prefill,
Agrawal et al. 2024). When blocks run short the youngest gives its up and is read again later: it continues with the
same tokens, since what it said so far is part of what it reads.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from agent.engine import GenerationRequest
from agent.engines.blocks import BlockPool, blocks_for, first_key, next_key
from agent.engines.runner import BLOCK, Piece


@dataclass(eq=False, slots=True)
class Sequence:
    """One request's tokens, and how far the model has read them."""

    request: GenerationRequest
    ids: list[int] = field(init=False)
    num_read: int = 0
    num_found: int = 0  # prompt tokens that were in the cache already
    has_begun: bool = False
    blocks: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)  # of the full blocks among `ids`, as far as they were needed

    def __post_init__(self) -> None:
        self.ids = list(self.request.prompt_ids)

    @property
    def num_generated(self) -> int:
        return len(self.ids) - len(self.request.prompt_ids)

    @property
    def is_scored(self) -> bool:
        """Whether its prompt is still to be read with the logits after each token."""
        return self.request.prompt_logprobs is not None and not self.num_generated

    @property
    def num_unread(self) -> int:
        return len(self.ids) - self.num_read

    def key(self, number: int) -> bytes:
        """The key of full block `number`."""
        while len(self.keys) <= number:
            start = len(self.keys) * BLOCK
            previous = self.keys[-1] if self.keys else first_key(self.request.caller)
            self.keys.append(next_key(previous, self.ids[start : start + BLOCK]))
        return self.keys[number]


@dataclass(frozen=True, slots=True)
class Budget:
    """Prompt tokens a step may read: when nobody is answering, and beside running answers."""

    idle: int = 256
    busy: int = 64


SCORED = 64  # prompt tokens a step whose logits are all wanted: each takes a row as wide as the vocabulary


S = TypeVar("S", bound=Sequence)


class Scheduler(Generic[S]):
    """Holds the sequences that have begun. Not thread-safe: one worker owns it."""

    def __init__(self, pool: BlockPool, *, max_batch: int, budget: Budget) -> None:
        self.pool = pool
        self.running: list[S] = []  # oldest first
        self.ready: deque[S] = deque()  # begun or about to: taken from the queue, without blocks now
        self.prefix_queries = self.prefix_hits = self.num_preemptions = 0
        self._max_batch = max_batch
        self._budget = budget

    @property
    def num_places(self) -> int:
        """How many more sequences could begin, blocks permitting."""
        return self._max_batch - len(self.running) - len(self.ready)

    def schedule(self) -> list[tuple[S, Piece]]:
        """The pieces of the next step, their blocks reserved."""
        is_answering = any(sequence.num_unread == 1 for sequence in self.running)
        left = self._budget.busy if is_answering else self._budget.idle
        work: list[tuple[S, Piece]] = []
        for sequence in list(self.running):
            size = min(_most(sequence), max(left, 1 if sequence.num_unread == 1 else 0))
            if size and sequence in self.running and self._reserve(sequence, size):
                left -= size if sequence.num_unread > 1 else 0
                work.append((sequence, _piece(sequence, size)))
        while left > 0 and self.ready and len(self.running) < self._max_batch and self._begin(self.ready[0]):
            sequence = self.ready.popleft()
            size = min(_most(sequence), left)
            left -= size
            self._extend(sequence, size)
            work.append((sequence, _piece(sequence, size)))
        return work

    def advance(self, sequence: S, size: int) -> None:
        """`size` more tokens of it are in the cache; whole blocks can be shared from now on."""
        before, sequence.num_read = sequence.num_read, sequence.num_read + size
        for number in range(before // BLOCK, sequence.num_read // BLOCK):
            self.pool.publish(sequence.blocks[number], sequence.key(number))

    def remove(self, sequence: S) -> None:
        """It has ended."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.ready:
            self.ready.remove(sequence)
        self._give_up(sequence)

    def _begin(self, sequence: S) -> bool:
        """Let it run if its tokens have room, with what is known of them already; the last is always read anew."""
        num_whole = 0 if sequence.is_scored else (len(sequence.ids) - 1) // BLOCK
        found = self.pool.find([sequence.key(number) for number in range(num_whole)])
        needed = blocks_for(len(sequence.ids) + 1) - len(found)
        if needed > self.pool.num_free:
            self.pool.release(found)
            return False
        sequence.blocks, sequence.num_read = found, len(found) * BLOCK
        if not sequence.has_begun:
            sequence.has_begun = True
            sequence.num_found = sequence.num_read
            self.prefix_queries += len(sequence.ids)
            self.prefix_hits += sequence.num_read
        self.running.append(sequence)
        return True

    def _reserve(self, sequence: S, size: int) -> bool:
        """Blocks for `size` more tokens, at the expense of the youngest; False when that is the sequence itself."""
        needed = blocks_for(sequence.num_read + size) - len(sequence.blocks)
        while needed > self.pool.num_free:
            youngest = self.running.pop()
            self._give_up(youngest)
            self.ready.appendleft(youngest)
            self.num_preemptions += 1
            if youngest is sequence:
                return False
        self._extend(sequence, size)
        return True

    def _extend(self, sequence: S, size: int) -> None:
        needed = blocks_for(sequence.num_read + size) - len(sequence.blocks)
        sequence.blocks += self.pool.take(needed)

    def _give_up(self, sequence: S) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks, sequence.num_read = [], 0


def _most(sequence: Sequence) -> int:
    """How many of its tokens one step may read."""
    return min(sequence.num_unread, SCORED) if sequence.is_scored else sequence.num_unread


def _piece(sequence: Sequence, size: int) -> Piece:
    start, end = sequence.num_read, sequence.num_read + size
    is_whole = end == len(sequence.ids)
    return Piece(sequence.ids[start:end], start, sequence.blocks, is_whole, sequence.is_scored)
