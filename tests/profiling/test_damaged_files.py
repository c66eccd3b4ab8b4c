"""`sluice source add` on files that can't be profiled: one sentence, nothing written, and never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluice.errors import SluiceError
from sluice.profiling.add import Addition, Target, plan
from sluice.profiling.profile import Bounds, Wishes

DEEP = b"[" * 100_000


@pytest.fixture
def drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder behind the connection `drop`, in a repository without declarations."""
    for folder in ("drop", "sources"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.setenv("SLUICE_SOURCES_DIR", str(tmp_path / "sources"))
    monkeypatch.setenv("AIRFLOW_CONN_DROP", f"file://{tmp_path}/drop")
    return tmp_path / "drop"


def _add(drop: Path, name: str, content: bytes) -> Addition:
    (drop / name).write_bytes(content)
    return plan(name, "drop", Target(source="odd"), Wishes(), Bounds())


def test_a_field_as_long_as_the_loader_reads_is_profiled(drop: Path) -> None:
    rows = b"".join(b"%d,%s\n" % (number, b"x" * 200_000) for number in range(3))
    profile = _add(drop, "long.csv", b"id,note\n" + rows).profile
    assert (profile.rows, profile.key) == (3, ("id",))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("deep.json", DEEP, "deep.json is nested too deeply"),
        ("deep.jsonl", b'{"id": 1}\n{"id": ' + DEEP + b"\n", "line 2 is nested too deeply"),
        ("deep_inside.jsonl", b'{"id": ' + DEEP[:2000] + b"]" * 2000 + b"}\n", "is nested too deeply"),
    ],
)
def test_what_can_be_no_rows_is_said_in_a_sentence(name: str, content: bytes, said: str, drop: Path) -> None:
    with pytest.raises(SluiceError, match="nothing was written") as refused:
        _add(drop, name, content)
    assert said in str(refused.value)
