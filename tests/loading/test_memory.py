"""Ten times the rows, the same memory: a format is a stream."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

MEASURE = """
import re, sys
from pathlib import Path
from sluice.declarations.files import FixedWidth, Json, Xml
from sluice.readers.base import Names
from sluice.readers.formats import jsonl, parquet
from sluice.readers.formats.fixed import FixedReader
from sluice.readers.formats.json import JsonReader
from sluice.readers.formats.xml import XmlReader
def lines(path):
    fields = ["n", "text"]
    with path.open("rb") as file:
        for block in jsonl._Decoder(fields, Names(fields)).rows(jsonl._blocks(file)):
            yield from block.records
def batches(path):
    for block in parquet._blocks([path], ["text"]):
        assert block.binary
        yield from block.records
reader = {
    "json": JsonReader(Json(records="rows")).records,
    "xml": XmlReader(Xml(record="row")).records,
    "fixed": FixedReader(FixedWidth(fields={"text": {"start": 9, "length": 900}})).records,
    "jsonl": lines,
    "parquet": batches,
}[sys.argv[1]]
def peak():  # of this program: ru_maxrss knows that of the one that started it, too
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
for path in sys.argv[2:]:
    print(sum(1 for _ in reader(Path(path))), peak())
"""


def written(name: str, rows: int, path: Path) -> Path:
    text = "x" * 900
    if name == "parquet":
        column = pyarrow.array([f"{n}{text}" for n in range(rows)])
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), path, compression="none", use_dictionary=False)
        return path
    form = {
        "jsonl": '{{"n": {n}, "text": "{text}"}}',
        "json": '{{"n": {n}, "text": "{text}"}}',
        "xml": "<row><n>{n}</n><text>{text}</text></row>",
    }
    line = form.get(name, "{n:<8}{text}")
    between, start, end = {"json": (",", '{"rows": [', "]}"), "xml": ("", "<rows>", "</rows>")}.get(
        name, ("\n", "", "")
    )
    with path.open("w") as file:
        file.write(start + between.join(line.format(n=n, text=text) for n in range(rows)) + end)
    return path


@pytest.mark.parametrize("name", ["json", "jsonl", "xml", "fixed", "parquet"])
def test_ten_times_the_rows_need_the_same_memory(name: str, tmp_path: Path) -> None:
    paths = [written(name, rows, tmp_path / f"{rows}") for rows in (5_000, 50_000)]
    answer = subprocess.run(
        [sys.executable, "-c", MEASURE, name, *map(str, paths)], capture_output=True, text=True, check=True, timeout=120
    )
    (few, small), (many, large) = (map(int, line.split()) for line in answer.stdout.splitlines())
    assert (few, many) == (5_000, 50_000)
    assert large / small <= 1.2, f"{small} kB, then {large} kB"
