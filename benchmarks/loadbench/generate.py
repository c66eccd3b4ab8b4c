"""Writes one size of TPC-H lineitem: the same rows as CSV, JSON Lines and Parquet, and three variants of the CSV.

Run by the interpreter of the environment `data`:  python generate.py DIRECTORY ROWS
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb

_ROWS_OF_SCALE_1 = 6_000_000  # lineitem has a few more
_BAD = ("number", "date", "range", "accepted", "fields")


def main(directory: Path, rows: int) -> None:
    """All files of one size. The directory appears only when it is whole."""
    making = directory.with_name(directory.name + ".making")
    (making / "bad").mkdir(parents=True, exist_ok=True)
    for day in (1, 2):
        (making / f"full/2026-01-0{day}").mkdir(parents=True, exist_ok=True)
    generator = Path(sys.executable).with_name("tpchgen-cli")
    scale = rows * 1.001 / _ROWS_OF_SCALE_1 + 0.001  # a little more, to cut from
    source = making / "generated"
    command = [generator, "parquet", "--scale-factor", f"{scale:.6f}", "--tables", "lineitem", "--output-dir", source]
    subprocess.run([*map(str, command), "--overwrite", "--quiet"], check=True)
    duck = duckdb.connect()
    duck.execute("set preserve_insertion_order = true")
    for suffix, options in (
        ("csv", "format csv, header"),
        ("jsonl", "format json"),
        ("parquet", "format parquet, compression snappy, row_group_size 122880"),
    ):
        duck.execute(
            f"copy (from '{source}/lineitem.parquet' limit {rows}) to '{making}/lineitem.{suffix}' ({options})"
        )
    duck.close()
    (source / "lineitem.parquet").unlink()
    source.rmdir()
    _vary(making, rows)
    making.rename(directory)


def _vary(directory: Path, rows: int) -> None:
    (directory / "full/2026-01-01/lineitem.csv").symlink_to("../../lineitem.csv")
    with (
        (directory / "lineitem.csv").open() as plain,
        (directory / "bad/lineitem.csv").open("w") as bad,
        (directory / "full/2026-01-02/lineitem.csv").open("w") as changed,
    ):
        header = next(plain)
        bad.write(header)
        changed.write(header)
        for number, line in enumerate(plain):
            bad.write(_spoiled(line, _BAD[number // 100 % len(_BAD)]) if number % 100 == 50 else line)
            changed.writelines(_a_day_later(line, number))


def _spoiled(line: str, how: str) -> str:
    """The record with one fault. The first eleven fields are never quoted."""
    fields = line.split(",", 11)
    if how == "fields":
        return ",".join(fields[1:])
    position, value = {"number": (4, "many"), "date": (10, "1996-02-31"), "range": (4, "-5"), "accepted": (8, "X")}[how]
    fields[position] = value
    return ",".join(fields)


def _a_day_later(line: str, number: int) -> list[str]:
    """In each hundred rows one has changed; in each ten thousand, one is gone and one is new besides."""
    if number % 10_000 == 7:
        return [f"{1_000_000_000 + number},{line.split(',', 1)[1]}"]
    if number % 100 != 50:
        return [line]
    fields = line.split(",", 7)
    fields[6] = "0.01" if fields[6] != "0.01" else "0.02"
    return [",".join(fields)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
