"""One machine for all examples: it resets itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prove.machine import Machine


@pytest.fixture(scope="module")
def machine(postgres: object) -> Iterator[Machine]:
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="sluice-prove-") as root:
        yield Machine(Path(root), postgres.database(), postgres.database())  # type: ignore[attr-defined]
    os.environ.clear()
    os.environ.update(before)
