"""The assets by which one DAG tells the next that there is something new."""

from __future__ import annotations

from airflow.sdk import Asset


def staging_asset(source: str) -> Asset:
    """The change logs of one source. An event says: at least one of them got rows."""
    return Asset(name=f"staging.{source}", uri=f"sluice://warehouse/staging/{source}", group="sluice")


def marts_asset() -> Asset:
    """The marts, for whoever builds on them. An event says: they are new, and passed their gate."""
    return Asset(name="marts", uri="sluice://warehouse/marts", group="sluice")
