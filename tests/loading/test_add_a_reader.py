"""The how-to's own code, run as it stands on the page."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sluice.declarations import load_folder
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


@pytest.fixture
def home(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one's own, as the page has it: the class in `include/`, its declaration, a delivered file."""
    include = tmp_path / "home/include"
    include.mkdir(parents=True)
    (include / "partner_blocks.py").write_text(blocks()["partner_blocks.py"])
    (world.sources / "partner.yml").write_text(blocks()["partner.yml"])
    world.deliver("2026-01-02/parcels", b"parcel_id = 4711\nweight.kg = 1.50\n")
    monkeypatch.setenv("SLUICE_HOME", str(include.parent))
    return include.parent


def sluice(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The real command, in a shell that was told of no path."""
    command = [sys.executable, "-m", "sluice.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/", check=False)


def test_the_class_is_found_where_the_page_says_by_the_plain_command(world: World, home: Path) -> None:
    done = sluice("load", "partner")
    assert done.returncode == 0, done.stderr
    assert world.query("select parcel_id, weight::text from staging.partner__parcels") == [("4711", "1.500")]


def test_a_fault_in_the_class_itself_is_named_with_its_line_and_without_a_value(world: World, home: Path) -> None:
    module = home / "include/partner_blocks.py"
    spoilt = module.read_text().replace("record = {}\n", "record = int('x' + path.read_text())\n", 1)
    module.write_text(spoilt)
    line = next(n for n, text in enumerate(module.read_text().splitlines(), start=1) if "int('x'" in text)
    done = sluice("load", "partner")
    assert done.returncode == 1
    assert f"ValueError at include/partner_blocks.py:{line}; the unit was left unread" in done.stderr
    assert "4711" not in done.stderr + world.whole_ledger()


UNUSABLE = [
    (lambda text: None, "can't be made: no module blocks_0 is in "),
    (lambda text: text.replace("class Blocks", "class Bricks"), "can't be made: blocks_1 has no class Blocks"),
    (lambda text: text.replace("separator=", "sep="), "its options (separator): TypeError: Blocks.__init__() got an "),
    (lambda text: text + "\nnonsense\n", "can't be made: NameError at include/blocks_3.py:"),
    (lambda text: text + "\nx = (\n", "can't be made: SyntaxError at include/blocks_4.py:"),
    (lambda text: text.replace("class Blocks(RecordFormat)", "class Blocks"), "is no RecordFormat"),
]


def test_validate_names_each_class_that_can_not_be_had_and_reading_declarations_imports_none(
    world: World, home: Path
) -> None:
    page = blocks()
    for number, (spoil, _) in enumerate(UNUSABLE):
        if text := spoil(page["partner_blocks.py"]):
            (home / f"include/blocks_{number}.py").write_text(text)
        declared = page["partner.yml"].replace("partner_blocks", f"blocks_{number}")
        (world.sources / f"p{number}.yml").write_text(declared.replace("source: partner", f"source: p{number}"))
    line = next(n for n, text in enumerate(page["partner.yml"].splitlines(), start=1) if "reader:" in text)
    done = sluice("validate")
    assert done.returncode == 1
    for number, (_, said) in enumerate(UNUSABLE):
        (fault,) = [text for text in done.stdout.splitlines() if f"/p{number}.yml:" in text and "warning" not in text]
        place = f"/p{number}.yml:{line}: tables.parcels.from.files.format.reader: blocks_{number}:Blocks "
        assert place in fault
        assert said in fault
    assert "/partner.yml:" not in done.stdout
    assert set(load_folder(world.sources).sources) == {"partner", *(f"p{number}" for number in range(len(UNUSABLE)))}
    assert not [name for name in sys.modules if name.startswith("blocks_")]
