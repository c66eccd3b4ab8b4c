"""What is promised of the layers of the warehouse: `include/layers.yml`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field

from sluice import settings
from sluice.declarations.base import Declared, Duration
from sluice.declarations.load import read_as

LAYERS = ("staging", "snapshots", "intermediate", "marts")


class Layer(Declared):
    """One layer: how long a run may take until its gate has judged it, and how old its rows may be."""

    deadline: Duration | None = Field(default=None, description="From queueing a run until its gate must have judged")
    freshness: Duration | None = Field(
        default=None, description="How old the last run may be that found it complete, and the rows it is made from"
    )


class Layers(Declared):
    """The warehouse: who answers for it, and its layers."""

    owner: str = Field(default="warehouse", min_length=1, description="The team or person who is asked")
    deadline: Duration = Field(default=timedelta(hours=2), description="How long after it is queued a run may take")
    staging: Layer = Layer()
    snapshots: Layer = Layer()
    intermediate: Layer = Layer()
    marts: Layer = Layer()

    def items(self) -> list[tuple[str, Layer]]:
        """The layers by name, in the order in which they are built."""
        return [(name, getattr(self, name)) for name in LAYERS]


def layers_file() -> Path:
    """`SLUICE_LAYERS`, or `include/layers.yml`."""
    return Path(settings.variable("SLUICE_LAYERS") or settings.home() / "include" / "layers.yml").absolute()


def load_layers(path: Path | None = None) -> Layers:
    """Read what is promised; without a file, the defaults. Raises `DeclarationError` with every fault."""
    path = path or layers_file()
    if not path.exists():
        return Layers()
    return read_as(path, Layers, "layers", "the warehouse")
