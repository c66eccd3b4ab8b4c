"""Archived deliveries are unpacked once and served like their publisher serves them."""

import sys
import tarfile
import time
from pathlib import Path

import httpx
import pytest

from sluice.runtime import deliveries
from sluice.runtime.faults import RuntimeFault
from sluice.runtime.ports import free_port
from sluice.runtime.processes import Supervisor


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two deliveries of one file."""
    for day in ("2026-01-01", "2026-01-02"):
        file = tmp_path / "ourairports" / day / "countries.csv"
        file.parent.mkdir(parents=True)
        file.write_text(f"id,code\n1,{day}\n")
    with tarfile.open(tmp_path / "some.tar.xz", "w:xz") as packed:
        packed.add(tmp_path / "ourairports", "ourairports")
    return tmp_path / "some.tar.xz"


def test_unpacked_once(archive: Path, tmp_path: Path) -> None:
    first = deliveries.unpack(archive, tmp_path / "state")
    (first / "mark").write_text("")
    assert deliveries.unpack(archive, tmp_path / "state") == first
    assert (first / "mark").exists()


def test_a_missing_or_broken_archive_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFault, match=r"SLUICE_OURAIRPORTS_ARCHIVE names .*none\.tar\.xz"):
        deliveries.unpack(tmp_path / "none.tar.xz", tmp_path)
    (tmp_path / "broken.tar.xz").write_bytes(b"no archive")
    with pytest.raises(RuntimeFault, match="cannot be unpacked"):
        deliveries.unpack(tmp_path / "broken.tar.xz", tmp_path)
    assert list((tmp_path / "deliveries").glob("broken-*[0-9]")) == []


def test_served_with_listing_and_last_modified(archive: Path, tmp_path: Path) -> None:
    directory, port = deliveries.unpack(archive, tmp_path / "state"), free_port()
    supervisor = Supervisor(tmp_path / "run.json", tmp_path / "logs")
    command = [sys.executable, "-m", "sluice.runtime.deliveries", str(directory), str(port)]
    supervisor.spawn("deliveries", command, {}, tmp_path)
    try:
        listing = _get(f"http://127.0.0.1:{port}/ourairports/")
        assert "2026-01-01/" in listing.text
        assert "2026-01-02/" in listing.text
        file = _get(f"http://127.0.0.1:{port}/ourairports/2026-01-02/countries.csv")
        assert file.text == "id,code\n1,2026-01-02\n"
        assert file.headers["Last-Modified"]
    finally:
        supervisor.stop()


def _get(url: str) -> httpx.Response:
    for _ in range(100):
        try:
            return httpx.get(url, trust_env=False)
        except httpx.ConnectError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")
