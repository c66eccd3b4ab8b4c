"""docs/reference/scd2-cases.md says for each of the 35 cases which tests show it, or that none does and why."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "scd2-cases.md"
_BEGIN, _END = "<!-- written by tests/test_scd2_cases_page.py: python -m tests.test_scd2_cases_page -->", "<!-- end -->"

# What a passing test does not say. Keep it honest: an operator relies on this page.
REMARKS = {
    4: "A polled table shows only what it held at each reading, and nothing marks its history as coarse.",
    6: "Beyond the declared overlap, and in append tables, nothing compares the source with the log: not found.",
    26: "No gate watches how many versions a key makes per day.",
    31: "Nothing depends on a histogram; `sluice lateness` prints one per table, and what to declare.",
    34: "Found by a test that a project declares; the database does not enforce it.",
    35: "Files at the source and backups are not reached; an extract that still has the values brings them back.",
}
NOT_MET: dict[int, str] = {}


def cases_shown() -> dict[int, list[str]]:
    """{case: names of the tests that carry its number}."""
    found: dict[int, list[str]] = {}
    for path in sorted((ROOT / "tests").glob("*/test_*.py")):
        for name, number in re.findall(r"^def (test_case_(\d\d)_\w+)\(", path.read_text(), re.MULTILINE):
            found.setdefault(int(number), []).append(f"`{path.relative_to(ROOT)}::{name}`")
    return found


def written() -> str:
    """The section, from the tests that there are."""
    found = cases_shown()
    lines = [_BEGIN, "", "| # | shown by | remark |", "|---|---|---|"]
    for number in range(1, 36):
        shown = "<br>".join(found.get(number, [])) or "**not met**"
        remark = REMARKS.get(number, "") if number in found else NOT_MET[number]
        lines.append(f"| {number} | {shown} | {remark} |")
    return "\n".join([*lines, "", _END])


def test_every_case_has_its_test_or_is_said_not_to_be_met() -> None:
    assert set(cases_shown()) | set(NOT_MET) == set(range(1, 36))


def test_the_page_names_the_tests_that_there_are() -> None:
    assert written() in PAGE.read_text(), f"write it anew: {_BEGIN}"


if __name__ == "__main__":
    text = PAGE.read_text()
    begin, end = text.index(_BEGIN), text.index(_END) + len(_END)
    PAGE.write_text(text[:begin] + written() + text[end:])
