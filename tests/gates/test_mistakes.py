"""What a person types wrong is a sentence and an exit code, never a traceback."""

from __future__ import annotations

import sys

import pytest

from sluice.cli import main

LONG = "9" * 25


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["gate", "docs", "/etc/passwd"], 1, "/etc/passwd can't be written to: File exists"),
        (["gate", "show", "--batch", LONG], 1, "can't take a value that was given: bigint out of range"),
        (["gate", "override", "a", "--reason", "x", "--batch", LONG], 1, "bigint out of range"),
        (["exporter", "--port", "99999"], 2, "65535"),
        (["alert", "watch", "--port", "99999"], 2, "65535"),
    ],
)
def test_a_mistake_is_a_sentence(warehouse, monkeypatch, capfd, arguments, code, said):
    monkeypatch.setattr(sys, "argv", ["sluice", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert said in " ".join(capfd.readouterr().err.replace("│", " ").split())


def test_a_warehouse_without_a_ledger_is_said(warehouse, monkeypatch, capfd):
    warehouse.execute("drop schema ops cascade")
    monkeypatch.setattr(sys, "argv", ["sluice", "gate", "show"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "the warehouse has no ledger yet. Make it: sluice migrate" in capfd.readouterr().err


@pytest.mark.parametrize("command", [["batch", "list"], ["source", "list"]])
def test_an_address_that_can_not_be_read_is_said_without_being_quoted(monkeypatch, capfd, command):
    monkeypatch.setenv("SLUICE_WAREHOUSE_URL", "postgresql//u:hunter2@h")
    monkeypatch.setattr(sys, "argv", ["sluice", *command])
    with pytest.raises(SystemExit):
        main()
    told = capfd.readouterr().err
    assert "can't be read; write it like" in told or "can't be asked: ProgrammingError" in told
    assert "hunter2" not in told
