"""Columns of Arrow in PostgreSQL's binary COPY format, where each value is there what its text would have become.

A row is joined by Arrow from parts: a run of columns of a fixed width is one part of it, a text another. Whatever is
not certain to mean the same (a year that the text of a date could not say, a nanosecond that a text would round, a NUL)
is not written at all: None instead of bytes, and the block goes as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute as pc
from pyarrow import types

_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TAIL = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_EPOCH = 10957  # days from 1970 to 2000
_FIRST, _LAST = -719162, 2932896  # days from 1970 to the years 1 and 9999
_DAY = 86_400_000_000  # microseconds
_INTEGERS = {"smallint": pyarrow.int16(), "integer": pyarrow.int32(), "bigint": pyarrow.int64()}
_FLOATS = {"real": pyarrow.float32(), "double precision": pyarrow.float64()}
_DIGITS = 18  # of a number that an int64 holds, whatever its digits
Bytes = npt.NDArray[np.uint8]


class _Uncertain(Exception):
    """The values might not mean what their texts do."""


def encoded(columns: Sequence[pyarrow.Array], kinds: Sequence[str]) -> bytes | None:
    """The rows of these columns for a binary COPY into columns of these Postgres types; None if not certain."""
    count = len(columns[0])
    run: list[Bytes] = [_same(len(columns).to_bytes(2, "big"), count)]
    parts: list[pyarrow.Array] = []
    try:
        for column, kind in zip(columns, kinds, strict=True):
            if kind == "text":
                length, text = _text(column)
                parts += [_joined([*run, length]), text]
                run = []
            elif column.null_count == count:
                run.append(_same(_NULL, count))
            elif column.null_count:
                if run:
                    parts.append(_joined(run))
                value = _joined(_value(column.fill_null(column.drop_null()[0]), kind))
                parts.append(pc.if_else(column.is_valid(), value, pyarrow.scalar(_NULL)))
                run = []
            else:
                run += _value(column, kind)
    except (_Uncertain, pyarrow.ArrowException):
        return None
    if run:
        parts.append(_joined(run))
    rows = pc.binary_join_element_wise(*parts, pyarrow.scalar(b""))
    return b"".join((_HEAD, rows.buffers()[2], _TAIL))


def _same(value: bytes, count: int) -> Bytes:
    return np.broadcast_to(np.frombuffer(value, np.uint8), (count, len(value)))


def _joined(run: list[Bytes]) -> pyarrow.Array:
    """Bytes of a fixed width for each row."""
    made = np.ascontiguousarray(np.hstack(run))
    ends = np.arange(0, made.size + 1, made.shape[1], dtype=np.int32)
    buffers = [None, pyarrow.py_buffer(ends), pyarrow.py_buffer(made)]
    return pyarrow.Array.from_buffers(pyarrow.binary(), len(made), buffers)


def _text(column: pyarrow.Array) -> tuple[Bytes, pyarrow.Array]:
    if not types.is_string(column.type):
        raise _Uncertain
    if column.offset:
        column = pyarrow.concat_arrays([column])
    data = column.buffers()[2]
    if data and (b"\0" in (said := data.to_pybytes()) or b"\\u0000" in said):
        raise _Uncertain
    length = pc.binary_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
    return _wide(length, ">i4"), column.fill_null("").cast(pyarrow.binary())


def _wide(values: npt.NDArray[Any], kind: str) -> Bytes:
    return values.astype(kind).view(np.uint8).reshape(len(values), -1)


def _value(column: pyarrow.Array, kind: str) -> list[Bytes]:
    """The length and the value of each row of a column without NULL."""
    made = _of_kind(column, kind)
    return [_same(made.shape[1].to_bytes(4, "big"), len(made)), made]


def _of_kind(column: pyarrow.Array, kind: str) -> Bytes:
    came = column.type
    if kind in _INTEGERS and types.is_integer(came):
        values = column.cast(_INTEGERS[kind]).to_numpy()
        return _wide(values, values.dtype.newbyteorder(">"))
    if _FLOATS.get(kind) == came:
        values = column.to_numpy()
        return _wide(values, values.dtype.newbyteorder(">"))
    if kind == "boolean" and types.is_boolean(came):
        return _wide(column.cast(pyarrow.uint8()).to_numpy(), "u1")
    if kind == "date" and types.is_date32(came):
        return _wide(_within(column.cast(pyarrow.int32()).to_numpy(), _FIRST, _LAST) - _EPOCH, ">i4")
    if kind in ("timestamp", "timestamptz") and types.is_timestamp(came) and came.unit != "ns":
        moment = column.cast(pyarrow.timestamp("us", came.tz)).cast(pyarrow.int64()).to_numpy()
        return _wide(_within(moment, _FIRST * _DAY, (_LAST + 1) * _DAY - 1) - _EPOCH * _DAY, ">i8")
    if kind == "numeric":
        return _numeric(*_digits(column))
    raise _Uncertain


def _within(values: npt.NDArray[Any], first: int, last: int) -> npt.NDArray[Any]:
    if len(values) and (values.min() < first or values.max() > last):
        raise _Uncertain
    return values


def _digits(column: pyarrow.Array) -> tuple[npt.NDArray[np.int64], int]:
    """Whole numbers, and how many of their digits are behind the point."""
    if types.is_integer(column.type):
        return column.cast(pyarrow.int64()).to_numpy(), 0
    if not types.is_decimal128(column.type) or column.type.scale < 0:
        raise _Uncertain
    data = np.frombuffer(column.buffers()[1], "<i8").reshape(-1, 2)[column.offset : column.offset + len(column)]
    if (data[:, 1] != data[:, 0] >> 63).any():
        raise _Uncertain
    return data[:, 0], column.type.scale


def _numeric(values: npt.NDArray[np.int64], scale: int) -> Bytes:
    """Digits to the base 10000, aligned to the point; the server drops leading and trailing zeros."""
    behind = -(-scale // 4)
    padding = 4 * behind - scale
    limit = 10 ** (_DIGITS - padding)
    rest = np.abs(_within(values, 1 - limit, limit - 1)) * 10**padding
    groups = max(-(-len(str(rest.max(initial=0))) // 4), behind, 1)
    made = np.empty((len(values), 4 + groups), ">u2")
    made[:, 0] = groups
    made[:, 1] = (groups - behind - 1) & 0xFFFF
    made[:, 2] = np.where(values < 0, 0x4000, 0)
    made[:, 3] = scale
    for group in range(groups - 1, -1, -1):
        higher = rest // 10_000
        made[:, 4 + group] = rest - higher * 10_000
        rest = higher
    return made.view(np.uint8).reshape(len(values), -1)
