"""docs/reference/faults.md says for each code of the loader, the warehouse and the watch what Sluice does, and which
tests show it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "faults.md"
_BEGIN, _END = "<!-- written by tests/test_faults_page.py: python -m tests.test_faults_page -->", "<!-- end -->"
_IN_NAME = re.compile(r"(?:^|_)([eldso]\d{1,2})(?=_|$)", re.IGNORECASE)
_IN_WORDS = re.compile(r"\b([ELDSO]\d{1,2})\b")

# What Sluice does, where it is not, or not only, what the catalogue asks. Keep it honest: operators rely on this page.
DOES = {
    "E1": "Read again with the next batch: the watermark is the oldest open transaction.",
    "E2": "One snapshot instead of pages; the next reading begins at the watermark, inclusive.",
    "E3": "Read again, and recognised by key, instant and hash.",
    "E4": "Reads from so much further back, once `CLOCK_SKEW`; a row whose own stamp went back is found by a key scan.",
    "E5": "`FUTURE`, where `cursor.max_future` is declared.",
    "E6": "`NULL_CURSOR`; it waits once, however often it is read.",
    "E7": "Stamps are compared in microseconds, inclusive.",
    "E8": "A tombstone at the instant of the scan; life again when the key returns.",
    "E9": "`EMPTY_SOURCE`; `sluice batch approve`.",
    "E10": "`MASS_DELETE`; `sluice batch approve`.",
    "E11": "Bounded backoff; the next attempt goes on at the page that failed; a circuit per connection.",
    "E12": "The window begins anew.",
    "E13": "`BAD_RESPONSE`: refused whole, the body kept.",
    "E14": "Markers, quiet time, trailers, sizes before and after; a cut file is refused.",
    "E15": "A no-op, with a batch `unchanged`.",
    "E16": "Supersedes; the check `content_changed` warns.",
    "E17": "The check `control_total`; both numbers are said.",
    "E18": "`ENCODING` with the offset, `NUL_BYTE`: the row, with its bytes.",
    "E19": "`CSV`, `FIELD_COUNT`, `JSON`: the row; a quote that never closes refuses the file.",
    "E20": "Not retried; names the connection; counts for its circuit.",
    "L1": "Every statement killed once: the same log after the retry.",
    "L2": "Publishing again is a no-op.",
    "L3": "`STALE_LEASE`, at landing and at publication.",
    "L4": "`LEASE_HELD`; a reading keeps its lease however long it lasts.",
    "L5": "`TYPE`: the row, with its position.",
    "L6": "One refusal, `max_reject_share`.",
    "L7": "`NOT_FINITE`, `PRECISION`, `TYPE`: the row.",
    "L8": "`TOO_LONG` names the limit of a key; the value is in the quarantined row. No reason says a size.",
    "L9": "`DISK_FULL` with how much had landed; nothing published; the retry works. No preflight asks for free space.",
    "L10": "The unit is read anew; emptied landing is noticed.",
    "L11": "Every session has bounded waits.",
    "L12": "Publication needs no lock that a reader holds; a change of shape asks for a moment, again and again.",
    "L13": "Four tries, then a clear error.",
    "D1": "`drift.new_column`: rescued, evolved into the log, or refused.",
    "D2": "`drift.missing_column`; a rename is recognised by shared values.",
    "D3": "`drift.wider_type`: the log is copied beside itself and exchanged.",
    "D4": "`TYPE` in quarantine, `changed_type` said.",
    "D5": "By name; an ambiguous one refuses if declared.",
    "D6": "`severity: {accepted: …}`.",
    "D7": "A batch is compared with the history of its table (`loading/history.py`).",
    "D8": "`ops.batch.schema_hash`, `ops.contract`.",
    "S1": "Equal rows count once; of conflicting ones none is believed (`DUPLICATE_KEY`).",
    "S2": "`NULL_KEY` at the loader; a log row without its key is refused by the snapshot, in every run.",
    "S3": "Chains are a pure function of the log: [the cases](scd2-cases.md), 1 to 7.",
    "S4": "Each node is a transaction; the next run resumes. A node without a row in `ops.model_run` has no result.",
    "S5": "Each node must have succeeded, whatever dbt says of the whole; a gate finds a skipped one without a result.",
    "S6": "An error is no pass: it blocks.",
    "S7": "`model_is_not_empty`: blocks where it had rows, warns where it never had any.",
    "S8": "The grain refuses it inside the transaction; counts and sums (`reconcile:`) at the gate of the layer.",
    "S9": "An inferred member under the key that the first real version will have.",
    "S10": "One transaction per model; a fact's key resolves at every instant (`ops.retired_key`).",
    "S11": "Tables are written in place and never dropped; a view is replaced only when it says something else.",
    "S12": "It loses nothing, so it needs no second key: the log is the history.",
    "O1": "`SluiceSourceLate` from the exporter, 1 minute after the promise is broken; days are made up in order.",
    "O2": "`SluiceHeartbeatStale` from `ops.step`, whatever Airflow says.",
    "O3": "Intervals are instants in UTC; a path's dates are days of its `time_zone`. Dates in the marts are UTC's.",
    "O4": "In the lanes of its connections, beside the schedule; one warehouse (`make bench-backfill`).",
    "O5": "The same content is a no-op; other content changes its own interval.",
    "O6": "The other DAGs live; the import error, and `sluice validate`, name file, line and field.",
    "O7": "A connection that is not set fails the first task: `wait`, and `pending` for what gates will ask.",
    "O8": "The outbox keeps and sends again, others get theirs; `SluiceAlertUndelivered` goes past the watcher.",
    "O9": "What was read is known from the warehouse; nothing is published again.",
}
NOT_MET: dict[str, str] = {}
EVERY = {f"{letter}{n}" for letter, last in (("E", 20), ("L", 13), ("D", 8), ("S", 12)) for n in range(1, last + 1)}
EVERY |= {f"O{n}" for n in range(1, 10)}


def shown() -> dict[str, list[str]]:
    """{code: the tests that carry it in their name, or in the first words of their docstring}."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").glob("*/test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                codes = {code.upper() for code in _IN_NAME.findall(node.name)}
                codes |= set(_IN_WORDS.findall(ast.get_docstring(node) or ""))
                for code in codes & (set(DOES) | set(NOT_MET)):
                    found.setdefault(code, []).append(f"`{path.relative_to(ROOT)}::{node.name}`")
    return found


def written() -> str:
    """The section, from the tests that there are."""
    found = shown()
    lines = [_BEGIN, "", "| code | what Sluice does | shown by |", "|---|---|---|"]
    lines += [f"| {code} | {text} | {'<br>'.join(found.get(code, []))} |" for code, text in DOES.items()]
    lines += [f"| {code} | **not met**. {text} | |" for code, text in NOT_MET.items() if code not in found]
    return "\n".join([*lines, "", _END])


def test_every_code_has_its_test_or_is_said_not_to_be_met() -> None:
    assert set(DOES) - set(shown()) == set()
    assert set(DOES) | set(NOT_MET) == EVERY


def test_the_page_names_tests_that_there_are_and_says_what_is_done() -> None:
    page = PAGE.read_text()
    section = page[page.index(_BEGIN) : page.index(_END)]
    assert set(re.findall(r"`tests/[^`]+`", section)) <= {name for names in shown().values() for name in names}
    for code, text in (DOES | NOT_MET).items():
        assert re.search(rf"^\| {code} \| .*{re.escape(text)}", section, re.MULTILINE), code


if __name__ == "__main__":
    text = PAGE.read_text()
    if _BEGIN not in text:
        text = f"{text.rstrip()}\n\n## What Sluice does, and what shows it\n\n{_BEGIN}\n{_END}\n"
    PAGE.write_text(text[: text.index(_BEGIN)] + written() + text[text.index(_END) + len(_END) :])
