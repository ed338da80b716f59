"""Which block of the key-value cache belongs to whom, and which hold the beginning of a prompt seen before.

A full block is known by a key: the digest of its caller, of all tokens before it, and of its own. Blocks nobody holds
stay findable until their place is needed, the longest unused first.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

from agent.engines.runner import BLOCK


def first_key(caller: str) -> bytes:
    """The key before a sequence's first block: what one caller computed is never found by another."""
    return hashlib.blake2b(caller.encode(), digest_size=16).digest()


def next_key(previous: bytes, ids: Sequence[int]) -> bytes:
    """The key of the block with these BLOCK tokens, after the block with key `previous`."""
    return hashlib.blake2b(previous + array("q", ids).tobytes(), digest_size=16).digest()


class BlockPool:
    """Counts holders of blocks. Not thread-safe: one worker owns it."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._holders = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))  # next to be taken first
        self._key_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds, findable or not."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Fresh blocks, held once. The caller has looked at `num_free`; ValueError when there are fewer."""
        if count > self.num_free:
            raise ValueError(f"{count} blocks are wanted and {self.num_free} are free")
        blocks = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in blocks:
            self._forget(block)
            self._holders[block] = 1
        return blocks

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """The blocks of the longest known beginning, each held once more."""
        found: list[int] = []
        for key in keys:
            block = self._block_of.get(key)
            if block is None:
                break
            self._holders[block] += 1
            self._free.pop(block, None)
            found.append(block)
        return found

    def publish(self, block: int, key: bytes) -> None:
        """The block is full and computed: from now on `find` may give it to others. The first with a key keeps it."""
        if key not in self._block_of:
            self._forget(block)
            self._key_of[block], self._block_of[key] = key, block

    def release(self, blocks: Sequence[int]) -> None:
        """Hold these once less. The end of a sequence is given up before its beginning, which others may share."""
        for block in reversed(blocks):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free[block] = None
                if block not in self._key_of:
                    self._free.move_to_end(block, last=False)

    def _forget(self, block: int) -> None:
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._block_of[key]


def blocks_for(num_tokens: int) -> int:
    """How many blocks hold so many tokens."""
    return -(-num_tokens // BLOCK)
