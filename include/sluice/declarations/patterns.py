"""Regular expressions as Postgres reads them, as far as that can be known without a server.

The audit asks Postgres itself (`loading/checks.py`). Here an editor and `sluice validate` say earlier what it would
refuse, and what it would take for something else than Python does.
"""

from __future__ import annotations

import re

_MOST = 255  # repetitions, in Postgres
# an escape, or a bracket expression: nothing in them is syntax of a group or of a repetition
_LITERAL = re.compile(r"\\.|\[\^?\]?(?:\\.|\[[:.=].*?[:.=]\]|[^\]\\])*\]", re.DOTALL)
_REPEATED = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_ESCAPES = {
    r"\b": r"\b is a backspace to Postgres; the edge of a word is \y",
    r"\B": r"\B is a backslash to Postgres; where no word begins or ends is \Y",
    r"\N": r"\N, a character by its name, is not known to Postgres; write the character",
}
_NOT_OURS = (
    (r"\(\?P[<=>]", "a group with a name, (?P…), is not known to Postgres; write (…)"),
    (r"\(\?>", "an atomic group, (?>…), is not known to Postgres; write (?:…)"),
    (r"\(\?\(", "a condition, (?(…)…), is not known to Postgres; write both cases with |"),
    (r"\(\?[a-zA-Z]*-?[a-zA-Z]+:", "options for a part, (?i:…), are not known to Postgres; write (?i) in front of all"),
    (r"\(\?[a-zA-Z]*[aLu][a-zA-Z]*\)", "the options a, L and u are Python's; Postgres does not know them"),
    (r"(?:[*+?]|\{\d+(?:,\d*)?\})\+", "a repetition that gives nothing back, such as a*+, is not known to Postgres"),
    (r"\{,\d+\}", "{,n} stands for itself in Postgres; write {0,n}"),
)
_CLASS = re.compile(r"\[:\w+:\]")
_EDGES = re.compile(r"\\(?:([yYmM])|.)", re.DOTALL)


def must_be_readable(pattern: str) -> None:
    """Raise `ValueError` for a pattern that Postgres refuses, or reads otherwise than it looks."""
    plain = _LITERAL.sub(lambda found: "x" if found[0] not in _ESCAPES else found[0], pattern)
    reasons = [reason for escape, reason in _ESCAPES.items() if escape in plain]
    reasons += [reason for syntax, reason in _NOT_OURS if re.search(syntax, plain)]
    reasons += [
        f"Postgres repeats at most {_MOST} times, and {found[0]} asks for more"
        for found in _REPEATED.finditer(plain)
        if any(int(count) > _MOST for count in found.groups() if count)
    ]
    if reasons:
        raise ValueError(f"pattern can't be used: {reasons[0]}")
    try:  # both know brackets, groups and what can be repeated; edges of words and classes go by other names
        re.compile(_EDGES.sub(lambda found: r"\b" if found[1] else found[0], _CLASS.sub("a", pattern)))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"pattern can't be read: {error}") from None
