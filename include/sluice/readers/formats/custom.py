"""A format of the project's own: its class is found and made here, and a fault in its code gets its place."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from traceback import walk_tb

from sluice import settings
from sluice.declarations.files import Custom
from sluice.readers.formats.records import RecordFormat


class Unusable(Exception):
    """The class can't be had, or not made. The text says why, and begins with a verb."""


def make(options: Custom) -> RecordFormat:
    """The reader that a declaration names, with its options. Raises `Unusable`."""
    module, name = options.reader.split(":")
    _reach_the_project()
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (Exception, SystemExit) as error:  # whatever its own lines raise
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise Unusable(f"can't be made: no module {error.name} is in {_project()}, nor on PYTHONPATH") from None
        raise Unusable(f"can't be made: {type(error).__name__}{place(error, options)}: {error}") from None
    if found is None:
        raise Unusable(f"can't be made: {module} has no class {name}")
    try:
        made = found(**options.options)
    except (Exception, SystemExit) as error:
        said = f": {error}" if isinstance(error, TypeError) else ""  # of another it may be an option's value
        given = ", ".join(options.options) or "none"
        raise Unusable(
            f"can't be made with its options ({given}): {type(error).__name__}{place(error, options)}{said}"
        ) from None
    if not isinstance(made, RecordFormat):
        raise Unusable("is no RecordFormat (sluice.readers.formats.records)")
    return made


def place(error: BaseException, options: Custom) -> str:
    """Where in the reader's own module an error arose, as ` at include/partner_blocks.py:14`; empty if it arose
    elsewhere. Not what it says, which may hold a row's value."""
    try:
        spec = find_spec(options.reader.split(":")[0])
    except Exception:  # the package around it is what fails
        return ""
    file = spec.origin if spec else None
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines = [error.lineno or 1]
    if not (file and lines):
        return ""
    path = Path(file)
    return f" at {path.relative_to(settings.home()) if path.is_relative_to(settings.home()) else path}:{lines[-1]}"


def _project() -> Path:
    return settings.home() / "include"


def _reach_the_project() -> None:
    """Make the project's own modules importable, behind all others, so that none stands in for a library's."""
    if str(_project()) not in sys.path:
        sys.path.append(str(_project()))
        importlib.invalidate_caches()
