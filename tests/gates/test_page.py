"""The page of all checks names every check that the code can write."""

import re
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
_WRITTEN = re.compile(
    r'(?:Check|Verdict|Finding|_said)\(\s*"([a-z_]+)"|record_check\(\s*connection,\s*batch,\s*"([a-z_]+)"'
)


def test_the_reference_names_every_check():
    page = (HOME / "docs" / "reference" / "gates.md").read_text(encoding="utf-8")
    written = {
        name
        for folder in ("include/sluice", "plugins")
        for path in (HOME / folder).rglob("*.py")
        for found in _WRITTEN.findall(path.read_text(encoding="utf-8"))
        for name in found
        if name
    }
    assert len(written) > 20
    gates = {"freshness", "tests"}  # names of gates, which are verdicts too
    assert {name for name in written - gates if f"`{name}`" not in page} == set()
