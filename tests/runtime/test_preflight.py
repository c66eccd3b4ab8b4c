"""Faults of the machine are sentences that name what to change, and nothing was started before."""

import socket
from pathlib import Path

import pytest

from sluice.runtime import preflight, run
from sluice.runtime.faults import RuntimeFault
from sluice.runtime.layout import Layout
from sluice.runtime.ports import LOCAL, free_port


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preflight.check_disk(tmp_path / "not" / "yet" / "there")
    monkeypatch.setenv("SLUICE_MIN_FREE_MB", str(10**9))
    with pytest.raises(RuntimeFault, match=r"only [\d,]+ MB are free .* SLUICE_STATE_DIR .* SLUICE_MIN_FREE_MB"):
        preflight.check_disk(tmp_path)


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeFault, match="SLUICE_STATE_DIR"):
        preflight.check_writable(tmp_path / "file" / "state")


@pytest.mark.parametrize("port", ["eight", "0", "65536"])
def test_a_port_that_is_none(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_WEB_PORT", port)
    with pytest.raises(RuntimeFault, match=r"SLUICE_WEB_PORT .* nothing was started"):
        Layout.from_environment()


@pytest.mark.parametrize("name", ["SLUICE_WEB_PORT", "SLUICE_SHOP_PORT", "SLUICE_POSTGRES_PORT"])
def test_make_run_with_a_busy_port_ends_with_one_sentence(
    name: str, open_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_STATE_DIR", str(open_directory / "state"))
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    for variable in (
        "SLUICE_WEB_PORT",
        "SLUICE_SHOP_PORT",
        "SLUICE_DELIVERIES_PORT",
        "SLUICE_POSTGRES_PORT",
        "SLUICE_EXPORTER_PORT",
        "SLUICE_WATCHER_PORT",
    ):
        monkeypatch.setenv(variable, str(free_port()))
    with socket.socket() as other:
        other.bind((LOCAL, 0))
        other.listen()
        monkeypatch.setenv(name, str(other.getsockname()[1]))
        assert run.main(["--once"]) == 1
    said = capsys.readouterr().err.strip()
    assert name in said
    assert "is in use by another program" in said
    assert len(said.splitlines()) == 1
    assert not (open_directory / "state" / "run.json").exists()
