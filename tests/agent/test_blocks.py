"""The block pool: who holds a block, which are found again, and which are given up first."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from agent.engines.blocks import BlockPool, blocks_for, first_key, next_key
from agent.engines.runner import BLOCK


def chain(caller: str, ids: Sequence[int]) -> list[bytes]:
    """The keys of the full blocks of `ids`."""
    keys = [first_key(caller)]
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        keys.append(next_key(keys[-1], ids[start : start + BLOCK]))
    return keys[1:]


def keys_of(count: int, start: int = 0) -> list[bytes]:
    return chain("ann", range(start, start + count * BLOCK))


def published(pool: BlockPool, keys: Sequence[bytes]) -> list[int]:
    """Fresh blocks, known by these keys and held once."""
    blocks = pool.take(len(keys))
    for block, key in zip(blocks, keys, strict=True):
        pool.publish(block, key)
    return blocks


# ── taking and releasing ─────────────────────────────────────────────────────────────────────────────────────────────


def test_blocks_are_taken_once_each_until_none_is_free() -> None:
    pool = BlockPool(5)
    assert sorted(pool.take(2) + pool.take(3)) == [0, 1, 2, 3, 4]
    assert pool.num_free == 0


def test_taking_none_is_fine_even_when_none_is_free() -> None:
    pool = BlockPool(1)
    pool.take(1)
    assert pool.take(0) == []


def test_released_blocks_can_be_taken_again() -> None:
    pool = BlockPool(3)
    blocks = pool.take(3)
    pool.release(blocks[:2])
    assert pool.num_free == 2
    assert sorted(pool.take(2)) == sorted(blocks[:2])


def test_taking_more_than_are_free_names_both_numbers_and_takes_nothing() -> None:
    pool = BlockPool(3)
    pool.take(1)
    with pytest.raises(ValueError, match="3 blocks are wanted and 2 are free"):
        pool.take(3)
    assert pool.num_free == 2


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (BLOCK, 1), (BLOCK + 1, 2), (10 * BLOCK, 10)])
def test_tokens_need_as_many_blocks_as_hold_them(tokens: int, blocks: int) -> None:
    assert blocks_for(tokens) == blocks


# ── finding what was computed ────────────────────────────────────────────────────────────────────────────────────────


def test_a_block_is_found_only_once_it_is_published() -> None:
    pool, (key,) = BlockPool(2), keys_of(1)
    (block,) = pool.take(1)
    assert pool.find([key]) == []
    pool.publish(block, key)
    assert pool.find([key]) == [block]


def test_a_shared_block_is_not_free_until_both_have_released_it() -> None:
    pool, keys = BlockPool(2), keys_of(1)
    blocks = published(pool, keys)
    assert pool.find(keys) == blocks
    pool.release(blocks)
    assert pool.num_free == 1
    pool.release(blocks)
    assert pool.num_free == 2


def test_the_longest_known_beginning_is_found_and_nothing_after_a_gap() -> None:
    pool, keys = BlockPool(4), keys_of(4)
    blocks = pool.take(4)
    for number in (0, 1, 3):
        pool.publish(blocks[number], keys[number])
    assert pool.find(keys) == blocks[:2]
    assert pool.find(keys[2:]) == []
    assert pool.find([]) == []


def test_a_published_block_nobody_holds_is_found_until_its_place_is_needed() -> None:
    pool, keys = BlockPool(2), keys_of(1)
    blocks = published(pool, keys)
    pool.release(blocks)
    assert pool.num_free == 2
    assert pool.find(keys) == blocks
    assert pool.num_free == 1
    pool.release(blocks)
    pool.take(2)
    assert pool.find(keys) == []


def test_a_found_block_is_not_taken_by_another() -> None:
    pool, keys = BlockPool(2), keys_of(1)
    blocks = published(pool, keys)
    pool.release(blocks)
    pool.find(keys)
    assert not set(pool.take(1)) & set(blocks)


def test_a_block_taken_anew_is_not_found_under_its_old_key_once_it_is_released() -> None:
    pool, (old, new) = BlockPool(1), (*keys_of(1), *keys_of(1, start=500))
    pool.release(published(pool, [old]))
    pool.release(published(pool, [new]))
    assert pool.find([old]) == []
    assert pool.find([new]) == [0]


def test_the_first_to_publish_a_key_keeps_it() -> None:
    pool, keys = BlockPool(3), keys_of(1)
    first = published(pool, keys)
    second = published(pool, keys)
    assert pool.find(keys) == first != second
    pool.release(second)
    pool.take(2)  # the second is known by no key, so its place is free for anything
    assert pool.find(keys) == first


# ── what is given up first ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_longest_unused_block_is_given_up_first() -> None:
    pool, one, other = BlockPool(2), keys_of(1), keys_of(1, start=500)
    for keys in (one, other):
        pool.release(published(pool, keys))
    pool.release(pool.find(one))  # used again: now the other is the longer unused
    pool.take(1)
    assert pool.find(other) == []
    assert len(pool.find(one)) == 1


def test_blocks_without_a_key_are_taken_before_those_that_could_be_found() -> None:
    pool, keys = BlockPool(4), keys_of(2)
    known = published(pool, keys)
    unknown = pool.take(2)
    pool.release(known)
    pool.release(unknown)
    assert sorted(pool.take(2)) == sorted(unknown)
    assert pool.find(keys) == known


def test_the_end_of_a_sequence_is_given_up_before_its_beginning() -> None:
    pool, keys = BlockPool(5), keys_of(4)
    blocks = published(pool, keys)
    tail = pool.take(1)
    pool.release(blocks + tail)
    for num_taken, num_left in ((1, 4), (1, 3), (2, 1)):
        pool.take(num_taken)
        found = pool.find(keys)
        assert found == blocks[:num_left]
        pool.release(found)


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_repeated_by_the_same_caller_and_tokens() -> None:
    assert chain("ann", range(64)) == chain("ann", list(range(64)))


def test_keys_differ_by_caller() -> None:
    assert not set(chain("ann", range(64))) & set(chain("bob", range(64)))
    assert not set(chain("ann", range(64))) & set(chain("", range(64)))


@pytest.mark.parametrize("at", [0, 7, BLOCK - 1])
def test_keys_differ_by_any_token(at: int) -> None:
    ids = list(range(BLOCK))
    changed = [*ids[:at], 1000, *ids[at + 1 :]]
    assert chain("ann", ids) != chain("ann", changed)


def test_keys_differ_by_the_blocks_before_and_are_the_same_up_to_the_difference() -> None:
    first, second = chain("ann", range(64)), chain("ann", [*range(BLOCK), 1000, *range(BLOCK + 1, 64)])
    assert first[0] == second[0]
    assert not set(first[1:]) & set(second[1:])
    assert len(set(chain("ann", [5] * 64))) == 4  # the same tokens at another place are another block


# ── all together ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_no_block_has_two_owners_and_the_free_ones_are_counted(seed: int) -> None:
    chance = random.Random(seed)
    pool = BlockPool(chance.randint(4, 24))
    prompts = [keys_of(6, start=1000 * number) for number in range(3)]
    holders: Counter[int] = Counter()
    known: dict[bytes, int] = {}  # what can be found, by our own books
    held: list[list[int]] = []  # what each holder has

    def take(count: int) -> list[int]:
        blocks = pool.take(count)
        assert len(set(blocks)) == count
        assert all(not holders[block] for block in blocks), "a block that somebody holds was given away"
        for key in [key for key, block in known.items() if block in blocks]:
            del known[key]
        return blocks

    for _ in range(300):
        action = chance.choice(("take", "read", "read", "release", "release"))
        if action == "take" and pool.num_free:
            held.append(take(chance.randint(1, pool.num_free)))
            holders.update(held[-1])
        elif action == "read":
            keys = chance.choice(prompts)[: chance.randint(1, 6)]
            found = pool.find(keys)
            assert found == [known[key] for key in keys[: len(found)]]
            assert len(found) == len(keys) or keys[len(found)] not in known
            holders.update(found)
            fresh = take(min(len(keys) - len(found), pool.num_free))
            holders.update(fresh)
            for block, key in zip(fresh, keys[len(found) :], strict=False):
                pool.publish(block, key)
                known.setdefault(key, block)
            held.append(found + fresh)
        elif action == "release" and held:
            blocks = held.pop(chance.randrange(len(held)))
            pool.release(blocks)
            holders.subtract(blocks)
        assert pool.num_free == pool.num_blocks - sum(count > 0 for count in holders.values())

    for blocks in held:
        pool.release(blocks)
    assert pool.num_free == pool.num_blocks
    assert sorted(pool.take(pool.num_blocks)) == list(range(pool.num_blocks))


@pytest.mark.parametrize("num_taken", range(7))
def test_a_busy_cache_gives_up_its_blocks_in_the_order_of_their_last_use(num_taken: int) -> None:
    chance = random.Random(num_taken)
    pool, prompts = BlockPool(6), [keys_of(1, start=1000 * number) for number in range(6)]
    uses = [*range(6), *(chance.randrange(6) for _ in range(40))]
    for number in uses[:6]:
        pool.release(published(pool, prompts[number]))
    for number in uses[6:]:
        pool.release(pool.find(prompts[number]))
    latest_first = list(dict.fromkeys(reversed(uses)))
    pool.take(num_taken)
    assert {number for number in range(6) if pool.find(prompts[number])} == set(latest_first[: 6 - num_taken])
