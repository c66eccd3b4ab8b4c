"""What is odd about a block of text, found in one pass over it.

Looking for each of these with `in` took half of the loader's own time; one automaton for all of them takes a
twentieth of that.
"""

from __future__ import annotations

import re
import threading
from enum import IntFlag

import hyperscan

# how what Postgres takes for a number and a person takes for a name begins: 1_000, and 0x1F
NUMBER = r"[+-]?(?:0[xob][0-9a-f_]|[0-9.]+(?:e[+-]?[0-9]+)?_[0-9])"
# what Postgres takes for a time and means something else tomorrow, or no time at all
WORDS = ("now", "today", "tomorrow", "yesterday", "epoch", "infinity", "allballs")


class Oddity(IntFlag):
    """What COPY would take for something else than its reader may have meant."""

    NONE = 0
    WORD = 1  # one of `WORDS`, in any case, between characters that are no letters
    END_MARK = 2  # `\\.`, which ends the data for PostgreSQL 17
    BLANK_LINE = 4
    NUMBER = 8  # `NUMBER`, in any case, after a character that is part of no name


_PATTERNS = {
    Oddity.WORD: rb"(?:^|[^A-Za-z])(?:%b)(?:$|[^A-Za-z])" % "|".join(WORDS).encode(),
    Oddity.END_MARK: rb"\\\.",
    Oddity.BLANK_LINE: rb"(?:^|\n)\r?\n",
    Oddity.NUMBER: rb"[0-9]_[0-9]|0[xob][0-9a-f_]",  # or part of a name: the exact pattern takes four times as long
}
_NUMBER = re.compile(rb"(?:^|[^A-Za-z0-9_.-])" + NUMBER.encode(), re.IGNORECASE)
_own = threading.local()  # an automaton has one scratch space


def oddities(data: bytes) -> Oddity:
    """Which oddities stand anywhere in `data`."""
    found = Oddity.NONE

    def note(kind: int, *_: object) -> None:
        nonlocal found
        found |= Oddity(kind)

    _automaton().scan(data, match_event_handler=note)
    return found if Oddity.NUMBER not in found or _NUMBER.search(data) else found & ~Oddity.NUMBER


def _automaton() -> hyperscan.Database:
    if not hasattr(_own, "automaton"):
        automaton = hyperscan.Database()
        flags = hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_DOTALL
        automaton.compile(
            expressions=list(_PATTERNS.values()), ids=[int(kind) for kind in _PATTERNS], flags=[flags] * len(_PATTERNS)
        )
        _own.automaton = automaton
    return _own.automaton
