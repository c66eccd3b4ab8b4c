"""The how-to's own code, run as it stands on the page."""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

import pytest

from sluice.errors import SluiceError
from tests.loading.conftest import World

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/add-a-reader.md"


def blocks() -> dict[str, str]:
    """The page's marked code blocks, by the names of their files."""
    found = re.findall(r"<!-- test: (\S+) -->\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return dict(found)


def test_the_format_on_the_page_is_twenty_lines_and_loads_files(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "partner_blocks.py").write_text(blocks()["partner_blocks.py"])
    (world.sources / "partner.yml").write_text(blocks()["partner.yml"])
    code = [line for line in blocks()["partner_blocks.py"].splitlines() if line.strip()]
    assert len(code) <= 20
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    body = b"parcel_id = 007\nweight.kg = 1.50\nnew = x\n\nno pair\n\nparcel_id = 8\n"
    world.deliver("2026-01-02/parcels.gz", gzip.compress(body))
    (published,) = world.load("parcels", name="partner")
    assert (published.rows_read, published.rows_applied) == (3, 2)
    assert world.query("select parcel_id, weight::text, _rescued::text from staging.partner__parcels order by 1") == [
        ("007", "1.500", '{"new": "x"}'),
        ("8", None, None),
    ]
    assert world.query("select row_number, code, raw from ops.quarantine") == [(2, "BLOCK", "no pair")]
    assert world.books_balance()


def test_a_class_that_can_not_be_had_is_said_by_its_name(world: World) -> None:
    text = blocks()["partner.yml"].replace("separator", "strict")
    world.deliver("2026-01-02/parcels", b"a=1\n")
    for wrong in ("nowhere:Blocks", "json:Nothing", "json:JSONDecoder"):
        (world.sources / "partner.yml").write_text(text.replace("partner_blocks:Blocks", wrong))
        with pytest.raises(SluiceError, match=f"format.reader {wrong} (can't be made|is no RecordFormat)"):
            world.load("parcels", name="partner")
