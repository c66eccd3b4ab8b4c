"""JSON lines that one program wrote: the same fields in the same order, a field always in quotes or never, no escapes.

Nothing of such a line needs to be parsed. What stands between two values is known, and is compared byte for byte; the
values become fields of PostgreSQL's text format by cutting away everything between them. A block of other lines is not
taken: it is decoded (`jsonl`), which means the same and takes three times as long.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]

_END = b"\t\\N\n"  # after the last value: nothing to rescue, and the row's end
_PADDING = bytes(64)
_NULL = b"\0"
_LOOK = 50  # lines, of which one will have a value where others have null
_LONGEST = 32  # characters of a value without quotes
_ONES = np.uint64(0x0101010101010101)


def _automaton() -> npt.NDArray[np.uint16]:
    """What a value without quotes may be: a number as JSON writes it (but `-0`, which another reading makes 0), true,
    false, or a null that was replaced; and then a comma or a brace. The state that follows, by 256 times the state plus
    the byte. States are multiples of 256; `_DONE` and 0, which is wrong, are for ever."""
    digits = "0123456789"
    steps: dict[str, list[tuple[str, str]]] = {
        "start": [("-", "minus"), ("0", "zero"), (digits[1:], "whole"), ("\0", "null"), ("t", "t"), ("f", "f")],
        "done": [],
        "minus": [("0", "minus zero"), (digits[1:], "whole")],
        "minus zero": [(".", "point"), ("eE", "e")],
        "zero": [(".", "point"), ("eE", "e")],
        "whole": [(digits, "whole"), (".", "point"), ("eE", "e")],
        "point": [(digits, "fraction")],
        "fraction": [(digits, "fraction"), ("eE", "e")],
        "e": [("+-", "sign"), (digits, "exponent")],
        "sign": [(digits, "exponent")],
        "exponent": [(digits, "exponent")],
        "null": [],
    }
    for word in ("true", "false"):
        steps |= {word[:end]: [(word[end], word[: end + 1])] for end in range(1, len(word))} | {word: []}
    for last in ("zero", "whole", "fraction", "exponent", "null", "true", "false"):
        steps[last].append((",}", "done"))
    number = {state: index for index, state in enumerate(["wrong", *steps])}
    following = np.zeros((len(number), 256), np.uint16)
    for state, ways in steps.items():
        for characters, to in ways:
            following[number[state], list(characters.encode())] = number[to] * 256
    following[number["done"]] = number["done"] * 256
    return following.ravel()


_FOLLOWING = _automaton()
_START, _DONE = 256, 512


class Alike:
    """How the lines of a block are written, as far as the first of them tell."""

    def __init__(self, block: bytes, fields: list[str]) -> None:
        """Raises `ValueError` where lines have other fields than these, or in another order."""
        items: list[Any] = [json.loads(line) for line in block.split(b"\n", _LOOK)[:_LOOK]]
        if not fields or any(not isinstance(item, dict) or list(item) != fields for item in items):
            raise ValueError(fields)
        self._keys = [json.dumps(name, ensure_ascii=False).encode() for name in fields]
        if any(b"\\" in key or key.count(b'"') != 2 for key in self._keys):
            raise ValueError(fields)
        self._quoted = [any(isinstance(item[name], str) for item in items) for name in fields]
        line = block.partition(b"\n")[0]
        spaced = line.startswith(b"{" + self._keys[0] + b": ")
        self._colon = b": " if spaced else b":"
        comma = b", " if len(fields) > 1 and b", " + self._keys[1] in line else b","
        quote = [b'"' if quoted else b"" for quoted in self._quoted]
        before = [b'"' if quoted else b"" for quoted in [self._quoted[-1], *self._quoted[:-1]]]
        opening = [b"}\n{", *[comma] * (len(fields) - 1)]
        # what stands before each value, from the end of the one before it
        keys = [key + self._colon for key in self._keys]
        self._gaps = list(map(b"".join, zip(before, opening, keys, quote, strict=True)))
        # of a line's quotes, which is the first of each key
        self._quotes = [2 * index + 2 * sum(self._quoted[:index]) for index in range(len(fields))]
        self._count = 2 * (len(fields) + sum(self._quoted))

    def rows(self, block: bytes) -> tuple[int, bytes] | None:
        """The lines as rows in PostgreSQL's text format, with an empty column at the end. None if a line is of another
        kind.
        """
        if b"\\" in block or _NULL in block or not (block.isascii() or _is_utf8(block)):
            return None
        if found := self._rows(block):
            return found
        replaced = self._with_nulls(block)
        return self._rows(replaced) if replaced != block else None

    def _rows(self, block: bytes) -> tuple[int, bytes] | None:
        buffer = bytearray(block)
        size = len(buffer) + 1
        buffer += b"\n" + _PADDING
        text = np.frombuffer(buffer, np.uint8)
        quotes = np.flatnonzero(text == ord('"'))
        count, more = divmod(len(quotes), self._count)
        if more or not count:
            return None
        begins, ends = self._values(quotes.reshape(count, self._count).T.copy(), size)
        if not self._is_exact(buffer, begins, ends) or not self._are_plain(text, begins, ends):
            return None
        if np.count_nonzero(text[:size] < 32) != count + np.count_nonzero(text[:size] == 0):
            return None  # characters that JSON has no place for
        return count, self._cut(text, begins, ends).replace(_NULL, b"\\N")

    def _with_nulls(self, block: bytes) -> bytes:
        """A null as a character that no value has, in quotes if the field's values are."""
        if self._colon + b"null" not in block:
            return block
        for key, quoted in zip(self._keys, self._quoted, strict=True):
            block = block.replace(key + self._colon + b"null", key + self._colon + (b'"\0"' if quoted else _NULL))
        return block

    def _values(self, quotes: Places, size: int) -> tuple[list[Places], list[Places]]:
        """Where each field's values begin and end, by the places of the quotes of each line."""
        begins, ends = [], []
        for index, (place, quoted) in enumerate(zip(self._quotes, self._quoted, strict=True)):
            if quoted:
                begins.append(quotes[place + 2] + 1)
                ends.append(quotes[place + 3])
                continue
            begins.append(quotes[place + 1] + 1 + len(self._colon))
            if index + 1 < len(self._quotes):
                comma = len(self._gaps[index + 1].partition(b'"')[0])
                ends.append(quotes[self._quotes[index + 1]] - comma)
            else:
                ends.append(np.append(quotes[0][1:] - 3, size - 2))
        return begins, ends

    def _is_exact(self, buffer: bytearray, begins: list[Places], ends: list[Places]) -> bool:
        """Whether nothing but the expected stands before, between and after the values."""
        words = np.ndarray((len(buffer) - 8,), np.dtype("<u8"), buffer, 0, (1,))
        tail, size = self._gaps[0].partition(b"\n")[0] + b"\n", len(buffer) - len(_PADDING)
        head = self._gaps[0].partition(b"\n")[2]
        if not buffer.startswith(head) or begins[0][0] != len(head):
            return False
        if buffer[ends[-1][-1] : size] != tail:
            return False
        for index, gap in enumerate(self._gaps):
            begin = begins[index] if index else begins[0][1:]
            end = ends[index - 1] if index else ends[-1][:-1]
            if np.any(begin - end != len(gap)):
                return False
            for start in range(0, len(gap), 8):
                part = gap[start : start + 8]
                found = words[end + start]
                if len(part) < 8:
                    found &= np.uint64((1 << 8 * len(part)) - 1)
                if np.any(found != np.uint64(int.from_bytes(part, "little"))):
                    return False
        return True

    def _are_plain(self, text: npt.NDArray[np.uint8], begins: list[Places], ends: list[Places]) -> bool:
        """Whether values without quotes are what JSON allows without."""
        bare = [index for index, quoted in enumerate(self._quoted) if not quoted]
        if not bare:
            return True
        begin = np.concatenate([begins[index] for index in bare])
        length = np.concatenate([ends[index] for index in bare]) - begin
        if int(length.max()) > _LONGEST:
            return False
        state = np.full(len(begin), _START, np.uint16)
        steps = 0
        for place in range(int(length.max()) + 1):
            steps += np.count_nonzero(state != _DONE)
            state = _FOLLOWING[state + text[begin + place]]
        # all of them ended, and each only where it was to end
        return bool((state == _DONE).all()) and steps == int(length.sum()) + len(length)

    def _cut(self, text: npt.NDArray[np.uint8], begins: list[Places], ends: list[Places]) -> bytes:
        """Only the values, with what COPY wants between them written into the bytes that follow each."""
        turns = np.zeros(len(text) // 8 * 8 + 8, np.uint8)  # 1 where what is kept begins or ends
        for begin, end in zip(begins[:-1], ends[:-1], strict=True):
            turns[begin], turns[end + 1] = 1, 1
            text[end] = ord("\t")
        turns[begins[-1]], turns[ends[-1] + len(_END)] = 1, 1
        for place, byte in enumerate(_END):
            text[ends[-1] + place] = byte
        return text[_odd(turns)[: len(text)]].tobytes()


def _odd(turns: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Where the number of ones so far is odd. Eight bytes at once: a product sums them, none beyond its byte."""
    sums = turns.view(np.dtype("<u8"))
    sums *= _ONES
    totals = (sums >> np.uint64(56)).astype(np.uint8)
    before = np.cumsum(totals, dtype=np.uint8) - totals
    sums += (before & 1) * _ONES
    sums &= _ONES
    return turns.view(np.bool_)


def _is_utf8(block: bytes) -> bool:
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True
