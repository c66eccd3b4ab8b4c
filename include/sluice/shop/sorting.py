"""Sorting more than fits in memory: sorted runs in one temporary file, merged while they are read."""

import heapq
import pickle
from collections.abc import Iterable, Iterator
from io import SEEK_END
from itertools import islice
from operator import itemgetter
from tempfile import TemporaryFile
from typing import IO, NamedTuple, TypeVar

T = TypeVar("T")
Keyed = tuple[str, T]

RUN = 1_000
"""Items in one run; at most two runs are in memory while runs are written."""
BLOCK = 20
"""Items of each run held in memory while runs are merged."""
FAN_IN = 16
"""Runs that are merged at once; when there are more, they are first merged into fewer."""


class Run(NamedTuple):
    """Where in the file a sorted run begins, and of how many blocks it consists."""

    start: int
    blocks: int


def sort_by_key(items: Iterable[Keyed[T]], run: int = RUN) -> Iterator[Keyed[T]]:
    """The items in order of their key. Equal keys keep no particular order, so make keys unique."""
    iterator = iter(items)
    first = sorted(islice(iterator, run), key=itemgetter(0))
    following = list(islice(iterator, run))
    if not following:
        yield from first
        return
    with TemporaryFile(prefix="sluice-shop-") as file:
        runs = [_write(file, first)]
        del first
        while following:
            runs.append(_write(file, sorted(following, key=itemgetter(0))))
            following = list(islice(iterator, run))
        while len(runs) > FAN_IN:
            groups = (runs[start : start + FAN_IN] for start in range(0, len(runs), FAN_IN))
            runs = [_write(file, _merged(file, group)) for group in groups]
        yield from _merged(file, runs)


def _write(file: IO[bytes], items: Iterable[Keyed[T]]) -> Run:
    """Append a sorted run, block by block."""
    start, blocks, iterator = file.seek(0, SEEK_END), 0, iter(items)
    while block := list(islice(iterator, BLOCK)):
        file.seek(0, SEEK_END)
        pickle.dump(block, file, protocol=pickle.HIGHEST_PROTOCOL)
        blocks += 1
    return Run(start, blocks)


def _merged(file: IO[bytes], runs: list[Run]) -> Iterator[Keyed[T]]:
    return heapq.merge(*(_read(file, run) for run in runs), key=itemgetter(0))


def _read(file: IO[bytes], run: Run) -> Iterator[Keyed[T]]:
    """One run again, one block at a time; the file is shared with the other runs."""
    position = run.start
    for _ in range(run.blocks):
        file.seek(position)
        block = pickle.load(file)
        position = file.tell()
        yield from block
