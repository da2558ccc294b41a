"""Which blocks of a region are taken: of the pool, by us; of the results, by the worker."""

from __future__ import annotations


class RegionError(Exception):
    """Blocks were taken twice, or given back that were free."""


class Region:
    """First fit over a bit for each block, kept in one big number."""

    def __init__(self, size: int, block_bytes: int) -> None:
        self.block_bytes = block_bytes
        self.blocks = size // block_bytes
        self._taken = 0

    @property
    def taken(self) -> int:
        """How many blocks are taken."""
        return self._taken.bit_count()

    def blocks_for(self, size: int) -> int:
        return -(-size // self.block_bytes)

    def take(self, size: int) -> int | None:
        """First block of a free run for `size` bytes; None: there is none."""
        count = self.blocks_for(size)
        run = (1 << count) - 1
        for first in range(self.blocks - count + 1):
            if not self._taken >> first & run:
                self.mark(first, count)
                return first
        return None

    def mark(self, first: int, count: int) -> None:
        """These are taken now. Raises RegionError where one is already."""
        bits = (1 << count) - 1 << first
        if first + count > self.blocks:
            raise RegionError(f"blocks {first} to {first + count - 1} of {self.blocks}")
        if self._taken & bits:
            raise RegionError(f"a block of {first} to {first + count - 1} is taken already")
        self._taken |= bits

    def give(self, first: int, count: int) -> None:
        bits = (1 << count) - 1 << first
        if self._taken & bits != bits:
            raise RegionError(f"a block of {first} to {first + count - 1} is free already")
        self._taken &= ~bits
