"""JSON Lines: one object a line; a line that is none is one rejected row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sluice.declarations import Table
from sluice.declarations.files import JsonLines
from sluice.readers.base import Digest, Read, Sink, Unit, source_fields
from sluice.readers.jsonl import as_fields, loads


def read(table: Table, options: JsonLines, path: Path, unit: Unit, sink: Sink) -> Read:
    """Land the objects of a file."""
    fields = [*source_fields(table), "_rescued"]
    result, digest = Read(fields), Digest()
    sink.create(fields)
    with path.open("rb") as file:
        sink.rows(_objects(digest.over(file), fields, sink, result))
    result.content_hash, result.bytes_read = digest.hex(), digest.size
    return result


def _objects(
    lines: Iterator[bytes], fields: list[str], sink: Sink, result: Read
) -> Iterator[tuple[int, list[str | None]]]:
    number = 0
    for line in lines:
        if not line.strip():
            continue
        number += 1
        item, problem = _object(line)
        if item is None:
            sink.reject(number, *problem, line.rstrip(b"\r\n"))
            result.rejects += 1
        else:
            yield number, as_fields(item, fields)


def _object(line: bytes) -> tuple[dict[str, Any] | None, tuple[str, str]]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, ("ENCODING", f"not UTF-8 at byte {error.start}")
    if "\\u0000" in text or "\0" in text:
        return None, ("NUL_BYTE", "a NUL character, which text in Postgres can't hold")
    try:
        item = loads(text)
        json.dumps(item, ensure_ascii=False).encode()  # a lone surrogate is a character that no encoding has
    except UnicodeEncodeError:
        return None, ("ENCODING", "half of a surrogate pair")
    except ValueError as error:
        return None, ("JSON", f"not JSON: {getattr(error, 'msg', 'unreadable')}")
    if not isinstance(item, dict):
        return None, ("JSON", "not a JSON object")
    return item, ("", "")
