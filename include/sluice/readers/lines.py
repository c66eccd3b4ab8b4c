"""The lines of a file as 64-bit hashes, to find those that the extract before this one did not have.

Only where each line is one record: a file with a line break inside quotes, with an empty line, a NUL byte or a lone
carriage return is not plain, and is read as if nobody had ever looked at its lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

from sluice.declarations.files import Csv

if TYPE_CHECKING:  # most loads compare no lines, and numpy is a tenth of a second and 15 MB
    import numpy as np
    import numpy.typing as npt

    Hashes = npt.NDArray[np.uint64]
_LONGEST = 64 << 20  # bytes of one line


class NotPlain(Exception):
    """The file can't be told apart by its lines."""


@dataclass
class Comparison:
    """What a reader finds out about the lines of one full extract.

    `known` are the hashes of the extract before, sorted and each once, if there is one to compare with; `shape` says
    how its lines were read. Afterwards `positions` and `hashes` are of the lines to remember, those not known.
    """

    smallest: int  # bytes; a smaller file is not worth it
    known: Hashes | None = None
    known_shape: str = ""
    known_seq: int = -1
    shape: str = ""
    compared: bool = False  # only lines that are not known have been landed
    matched: int = 0  # lines that are
    positions: list[Hashes] = field(default_factory=list)
    hashes: list[Hashes] = field(default_factory=list)

    def begin(self, shape: str, *, compare: bool) -> None:
        """Forget what was found out so far, and begin with the first line."""
        import numpy as np

        self.shape, self.compared, self.matched = shape, compare, 0
        self.positions, self.hashes = [], []
        self._seen = np.zeros(0 if self.known is None else len(self.known), dtype=bool)
        self._finder = None if self.known is None or not compare else _Finder(self.known)

    def give_up(self) -> None:
        """The lines say nothing: neither now nor to the next extract."""
        self.begin("", compare=False)

    def take(self, lines: list[bytes], before: int) -> list[int]:
        """Which of these lines are to be landed, by index; `before` is how many lines came earlier."""
        import numpy as np

        found = np.fromiter(map(xxh3_64_intdigest, lines), np.uint64, len(lines))
        new = np.arange(len(lines))
        if self._finder and len(self._seen):
            at, same = self._finder.find(found)
            self._seen[at[same]] = True
            self.matched += int(same.sum())
            new = new[~same]
            found = found[~same]
        self.positions.append((new + before + 1).astype(np.uint64))
        self.hashes.append(found)
        return new.tolist()

    @property
    def seen(self) -> int:
        """How many of the known lines are there still."""
        return int(self._seen.sum())

    @property
    def unseen(self) -> Hashes:
        """The known lines that are there no more."""
        assert self.known is not None
        return self.known[~self._seen]


class _Finder:
    """Finds hashes in a sorted array. They are spread evenly, so that their first bits say nearly where: a tenth of
    the time of a binary search, which leaves the processor's cache at each step."""

    def __init__(self, known: Hashes) -> None:
        import numpy as np

        bits = max(1, len(known).bit_length() - 2)
        self._known, self._shift = known, np.uint64(64 - bits)
        self._first = np.searchsorted(known, np.arange(1 << bits, dtype=np.uint64) << self._shift).astype(np.uint32)

    def find(self, wanted: Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Where each would stand, and whether it does."""
        import numpy as np

        at = self._first[(wanted >> self._shift).astype(np.intp)].astype(np.intp)
        last = len(self._known) - 1
        before = np.arange(len(wanted))  # those that may stand further on
        while len(before):
            before = before[(at[before] < last) & (self._known[np.minimum(at[before], last)] < wanted[before])]
            at[before] += 1
        at = np.minimum(at, last)
        return at, self._known[at] == wanted


def plain_lines(blocks: Iterable[bytes], dialect: Csv) -> Iterator[list[bytes]]:
    """The lines of a file, header included, a block at a time. Raises `NotPlain`."""
    try:
        quote = dialect.quote.encode(dialect.encoding) if dialect.quote else None
        if dialect.escape or "\n".encode(dialect.encoding) != b"\n":
            raise NotPlain
    except UnicodeEncodeError:
        raise NotPlain from None
    rest = b""
    for block in blocks:
        rest += block
        end = rest.rfind(b"\n") + 1
        if end:
            yield _split(rest[:end], quote)
            rest = rest[end:]
        elif len(rest) > _LONGEST:
            raise NotPlain
    if rest:
        yield _split(rest + b"\n", quote)


def _split(text: bytes, quote: bytes | None) -> list[bytes]:
    """Whole lines, without their ends. Raises `NotPlain` if one is not a record of its own."""
    if b"\r" in text and text.count(b"\r") != text.count(b"\r\n"):
        raise NotPlain
    if b"\0" in text or b"\n\n" in text or b"\n\r\n" in text or text.startswith((b"\n", b"\r\n")):
        raise NotPlain
    if quote and any(b"\n" in inside for inside in text.split(quote)[1::2]):
        raise NotPlain
    return text[:-1].split(b"\n")
