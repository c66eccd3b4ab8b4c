"""Writing a file so that no reader ever meets half of it, and where the shop's files are."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from shutil import rmtree
from typing import TextIO

WAREHOUSES = ("AMS", "LYS", "BER")
FOLDERS = ("inventory", "clickstream")


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that appears under its name only when it is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def inventory_path(root: Path, when: date, warehouse: str) -> Path:
    """The stock list of a warehouse on a date."""
    return root / "inventory" / when.isoformat() / f"{warehouse}.csv"


def done_path(path: Path) -> Path:
    """The marker beside a stock list, which holds its number of rows."""
    return path.with_name(f"{path.name}.done")


def clickstream_path(root: Path, when: date, hour: int) -> Path:
    """The events received in an hour."""
    return root / "clickstream" / when.isoformat() / f"{hour:02d}.jsonl"


def expected_paths(root: Path, when: date) -> Iterator[Path]:
    """Every file of one date."""
    for warehouse in WAREHOUSES:
        path = inventory_path(root, when, warehouse)
        yield path
        yield done_path(path)
    for hour in range(24):
        yield clickstream_path(root, when, hour)


def existing_files(root: Path) -> list[Path]:
    """The shop's files, sorted by name."""
    found = (path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


def remove_files(root: Path) -> None:
    """Remove the shop's two folders and nothing else."""
    for folder in FOLDERS:
        rmtree(root / folder, ignore_errors=True)
