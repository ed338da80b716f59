"""The scheduler with small pools and budgets, without a model: who is read, how much, and who gives way."""

import random
from dataclasses import dataclass, field

import pytest

from agent.engine import GenerationRequest
from agent.engines.blocks import BlockPool
from agent.engines.runner import BLOCK, Piece
from agent.engines.scheduler import Budget, Scheduler, Sequence

Work = list[tuple[Sequence, Piece]]


def begin(scheduler: Scheduler[Sequence], length: int, *, start: int = 0, caller: str = "ann") -> Sequence:
    """A prompt of `length` tokens from `start` on, ready to be read."""
    sequence = Sequence(GenerationRequest(tuple(range(start, start + length)), caller=caller))
    scheduler.ready.append(sequence)
    return sequence


def made(num_blocks: int = 64, *, max_batch: int = 8, idle: int = 256, busy: int = 64) -> Scheduler[Sequence]:
    return Scheduler(BlockPool(num_blocks), max_batch=max_batch, budget=Budget(idle=idle, busy=busy))


def step(scheduler: Scheduler[Sequence]) -> Work:
    """Read what is scheduled; each sequence that was read to its end says one more token."""
    work = scheduler.schedule()
    for sequence, piece in work:
        scheduler.advance(sequence, len(piece.ids))
    for sequence, piece in work:
        if piece.is_whole:
            sequence.ids.append(5000 + sequence.num_generated)
    return work


def sizes(work: Work) -> list[int]:
    return [len(piece.ids) for _, piece in work]


def until_whole(scheduler: Scheduler[Sequence], sequence: Sequence) -> list[Piece]:
    """Steps until it says its next token; its pieces on the way."""
    pieces: list[Piece] = []
    for _ in range(100):
        pieces += [piece for one, piece in step(scheduler) if one is sequence]
        if pieces and pieces[-1].is_whole:
            return pieces
    raise AssertionError("it was never read to its end")


# ── what a step reads ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_prompt_is_read_whole_and_then_one_token_a_step() -> None:
    scheduler = made()
    sequence = begin(scheduler, 40)
    assert sizes(step(scheduler)) == [40]
    for position in range(40, 44):
        ((one, piece),) = step(scheduler)
        assert (one, piece.position, piece.ids, piece.is_whole) == (sequence, position, [5000 + position - 40], True)
        assert len(piece.blocks) == 3


def test_each_running_answer_gets_one_token_a_step_however_small_the_budget() -> None:
    scheduler = made(idle=64, busy=1)
    sequences = [begin(scheduler, 10, start=100 * number) for number in range(5)]
    while any(not sequence.num_generated for sequence in sequences):
        step(scheduler)
    for _ in range(20):
        work = step(scheduler)
        assert [sequence for sequence, _ in work] == sequences
        assert sizes(work) == [1] * 5


def test_a_prompt_is_cut_to_the_idle_budget_while_nobody_answers() -> None:
    scheduler = made(idle=48, busy=8)
    sequence = begin(scheduler, 110)
    pieces = until_whole(scheduler, sequence)
    assert [(piece.position, len(piece.ids)) for piece in pieces] == [(0, 48), (48, 48), (96, 14)]
    assert [piece.is_whole for piece in pieces] == [False, False, True]
    assert [token for piece in pieces for token in piece.ids] == list(range(110))


def test_a_long_prompt_is_cut_to_the_busy_budget_and_stops_no_running_answer() -> None:
    scheduler = made(idle=48, busy=8)
    answering = begin(scheduler, 5, start=900)
    step(scheduler)
    long = begin(scheduler, 50)
    for number in range(6):
        work = step(scheduler)
        assert [(sequence, len(piece.ids)) for sequence, piece in work] == [(answering, 1), (long, 8)]
        assert answering.num_generated == number + 2
    assert sizes(step(scheduler)) == [1, 2]
    assert sizes(step(scheduler)) == [1, 1]


def test_several_prompts_share_one_budget_in_their_order() -> None:
    scheduler = made(idle=50)
    first, second, third = (begin(scheduler, 30, start=100 * number) for number in range(3))
    assert [(one, len(piece.ids)) for one, piece in step(scheduler)] == [(first, 30), (second, 20)]
    assert third in scheduler.ready


def test_no_more_than_max_batch_run_and_the_next_begins_when_one_leaves() -> None:
    scheduler = made(max_batch=2)
    first, second, third = (begin(scheduler, 10, start=100 * number) for number in range(3))
    for _ in range(5):
        step(scheduler)
        assert scheduler.running == [first, second]
    assert scheduler.num_places == -1
    scheduler.remove(first)
    assert [sequence for sequence, _ in step(scheduler)] == [second, third]
    assert scheduler.num_places == 0


# ── prompts that were read before ────────────────────────────────────────────────────────────────────────────────────


def test_a_beginning_is_read_once_for_the_same_caller() -> None:
    scheduler = made()
    first = begin(scheduler, 40)
    step(scheduler)
    second = begin(scheduler, 60)
    ((_, _), (_, piece)) = step(scheduler)
    assert (piece.position, piece.ids) == (32, list(range(32, 60)))
    assert list(piece.blocks[:2]) == first.blocks[:2]
    assert piece.blocks[2] != first.blocks[2]
    assert second.num_found == 32
    assert (scheduler.prefix_queries, scheduler.prefix_hits) == (100, 32)


def test_a_caller_never_finds_what_another_has_read() -> None:
    scheduler = made()
    first = begin(scheduler, 40)
    step(scheduler)
    other = begin(scheduler, 40, caller="bob")
    assert sizes(step(scheduler)) == [1, 40]
    assert not set(other.blocks) & set(first.blocks)
    assert (scheduler.prefix_queries, scheduler.prefix_hits, other.num_found) == (80, 0, 0)


def test_an_answer_is_found_too_when_the_next_prompt_repeats_it() -> None:
    scheduler = made()
    first = begin(scheduler, 20)
    for _ in range(30):
        step(scheduler)
    scheduler.remove(first)
    scheduler.ready.append(Sequence(GenerationRequest((*first.ids, 1, 2, 3), caller="ann")))
    ((_, piece),) = step(scheduler)
    assert piece.position == 48


@pytest.mark.parametrize("length", [BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 1])
def test_the_last_token_is_read_anew_even_if_the_whole_prompt_is_known(length: int) -> None:
    scheduler = made()
    first = begin(scheduler, length + 2 * BLOCK)
    step(scheduler)
    scheduler.remove(first)
    begin(scheduler, length)
    ((_, piece),) = step(scheduler)
    assert piece.position == (length - 1) // BLOCK * BLOCK
    assert (piece.ids[-1], piece.is_whole) == (length - 1, True)


# ── when blocks run short ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_youngest_is_preempted_when_blocks_run_short_and_later_reads_all_it_said() -> None:
    scheduler = made(6)
    old, young = (begin(scheduler, 20, start=100 * number) for number in range(2))
    waiting = begin(scheduler, 90, start=300)  # there is no room for it all the while
    while not scheduler.num_preemptions:
        step(scheduler)
    assert (scheduler.num_preemptions, scheduler.running, list(scheduler.ready)) == (1, [old], [young, waiting])
    assert (old.num_generated, young.num_generated) == (30, 29)  # the old one's fourth block was the seventh of all
    assert (young.blocks, young.num_read) == ([], 0)
    assert scheduler.pool.num_free == 6 - len(old.blocks)
    said = list(young.ids)
    scheduler.remove(old)
    pieces = until_whole(scheduler, young)
    assert [token for piece in pieces for token in piece.ids] == said[pieces[0].position :]
    assert pieces[0].position % BLOCK == 0
    assert scheduler.num_preemptions == 1


def test_several_give_way_youngest_first_and_wait_in_their_old_order() -> None:
    scheduler = made(9, idle=64, busy=64)
    old, *young = (begin(scheduler, 17, start=100 * number) for number in range(4))
    while scheduler.running != [old]:
        step(scheduler)
        assert scheduler.running + list(scheduler.ready) == [old, *young]
        assert len(old.ids) < 9 * BLOCK
    assert scheduler.num_preemptions == 3


def test_a_sequence_alone_proceeds_until_it_fills_the_pool() -> None:
    scheduler = made(4, idle=16)
    sequence = begin(scheduler, 40)
    while len(sequence.ids) < 4 * BLOCK:
        assert step(scheduler), "it stands still"
    assert (scheduler.num_preemptions, scheduler.pool.num_free) == (0, 0)


def test_a_prompt_that_is_preempted_while_it_is_read_counts_once() -> None:
    scheduler = made(8, idle=16, busy=8)
    old = begin(scheduler, 15)
    step(scheduler)
    young = begin(scheduler, 100, start=300)
    while not scheduler.num_preemptions:
        step(scheduler)
    assert young.num_generated == 0
    scheduler.remove(old)
    until_whole(scheduler, young)
    assert (scheduler.prefix_queries, scheduler.prefix_hits) == (115, 0)
    assert young.num_found == 0


def test_removing_gives_all_blocks_back_wherever_the_sequence_is() -> None:
    scheduler = made(6, idle=32)
    assert scheduler.schedule() == []
    read, cut, waiting = (begin(scheduler, 20, start=100 * number) for number in range(3))
    step(scheduler)
    assert (read.num_unread, cut.num_unread, list(scheduler.ready)) == (1, 8, [waiting])
    assert scheduler.pool.num_free == 3
    for sequence in (cut, waiting, read):
        scheduler.remove(sequence)
    assert (scheduler.pool.num_free, scheduler.running, list(scheduler.ready)) == (6, [], [])


# ── all together ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Books:
    """Our own account of what lies in the cache and of how far each sequence was read."""

    cells: dict[tuple[int, int], tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    positions: dict[Sequence, int] = field(default_factory=dict)

    def check(self, work: Work, *, num_preempted: int) -> None:
        """Every piece goes on where the last one ended, and what lies before it is its own beginning."""
        num_restarts = 0
        for sequence, piece in work:
            expected = self.positions.get(sequence, piece.position)
            if piece.position != expected:  # it gave its blocks up and began again, maybe in one step
                num_restarts += 1
                assert piece.position % BLOCK == 0
            self.positions[sequence] = end = piece.position + len(piece.ids)
            assert list(piece.ids) == sequence.ids[piece.position : end]
            assert piece.is_whole == (end == len(sequence.ids))
            for at in range(piece.position):
                cell = self.cells[piece.blocks[at // BLOCK], at % BLOCK]
                assert cell == (sequence.request.caller, tuple(sequence.ids[: at + 1]))
        assert num_restarts <= num_preempted, "a piece skips or repeats tokens"
        for sequence, piece in work:
            for at in range(piece.position, piece.position + len(piece.ids)):
                written = (sequence.request.caller, tuple(sequence.ids[: at + 1]))
                self.cells[piece.blocks[at // BLOCK], at % BLOCK] = written


@pytest.mark.parametrize("seed", range(25))
def test_whatever_comes_every_sequence_ends_and_no_token_is_skipped_or_repeated(seed: int) -> None:
    chance = random.Random(seed)
    num_blocks, max_batch = chance.randint(6, 14), chance.randint(1, 6)
    idle, busy = chance.randint(1, 60), chance.randint(1, 30)
    scheduler = made(num_blocks, max_batch=max_batch, idle=idle, busy=busy)
    books, longest, to_come = Books(), num_blocks * BLOCK - 1, 25
    ends: dict[Sequence, int] = {}
    for _ in range(5000):
        while to_come and scheduler.num_places > 0 and chance.random() < 0.3:
            to_come -= 1
            sequence = begin(scheduler, chance.randint(1, longest - 1), caller=chance.choice(("ann", "bob")))
            ends[sequence] = chance.randint(len(sequence.ids) + 1, min(longest, len(sequence.ids) + 60))
        before, num_preemptions = list(scheduler.running), scheduler.num_preemptions
        answering = {one for one in before if one.num_unread == 1}
        work = scheduler.schedule()
        assert work or not (scheduler.running or scheduler.ready), "there is work and nothing is done"
        assert len(scheduler.running) <= max_batch
        preempted = [one for one in before if one not in scheduler.running]
        assert all(not one.blocks for one in preempted)
        for one in preempted:
            del books.positions[one]
        assert answering <= {*preempted, *(one for one, _ in work)}, "an answer stood still"
        reading = sum(len(piece.ids) for one, piece in work if one not in answering)
        assert reading <= (busy if answering else idle)
        books.check(work, num_preempted=scheduler.num_preemptions - num_preemptions - len(preempted))
        for one, piece in work:
            scheduler.advance(one, len(piece.ids))
        for one in [one for one, piece in work if piece.is_whole]:
            one.ids.append(chance.randrange(3))
            if len(one.ids) >= ends[one]:
                scheduler.remove(one)
                del ends[one], books.positions[one]
        if not to_come and not ends:
            break
    assert (to_come, ends) == (0, {})
    assert scheduler.pool.num_free == num_blocks
