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


def test_a_ledger_that_is_older_than_the_command_is_said(warehouse, monkeypatch, capfd):
    warehouse.execute("drop schema ops cascade")
    monkeypatch.setattr(sys, "argv", ["sluice", "gate", "show"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "the ledger is older than this command" in capfd.readouterr().err
