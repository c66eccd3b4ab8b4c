"""The declarations that our runs load by: lineitem with a whole contract, once for each kind of source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_KEY = ["l_orderkey", "l_linenumber"]
_COLUMNS: dict[str, dict[str, Any]] = {
    "l_orderkey": {"type": "bigint", "required": True, "minimum": 1},
    "l_partkey": {"type": "bigint", "required": True, "minimum": 1},
    "l_suppkey": {"type": "bigint", "required": True, "minimum": 1},
    "l_linenumber": {"type": "integer", "required": True, "minimum": 1, "maximum": 7},
    "l_quantity": {"type": "numeric(15,2)", "required": True, "minimum": 1, "maximum": 50},
    "l_extendedprice": {"type": "numeric(15,2)", "required": True, "minimum": 0},
    "l_discount": {"type": "numeric(15,2)", "required": True, "minimum": 0, "maximum": 0.1},
    "l_tax": {"type": "numeric(15,2)", "required": True, "minimum": 0, "maximum": 0.08},
    "l_returnflag": {"type": "text", "required": True, "accepted": ["A", "N", "R"]},
    "l_linestatus": {"type": "text", "required": True, "accepted": ["F", "O"]},
    "l_shipdate": {"type": "date", "required": True},
    "l_commitdate": {"type": "date", "required": True},
    "l_receiptdate": {"type": "date", "required": True},
    "l_shipinstruct": {"type": "text", "required": True},
    "l_shipmode": {"type": "text", "required": True, "pattern": "^[A-Z ]+$"},
    "l_comment": {"type": "text"},
}


def write(directory: Path) -> None:
    """One file per source, so that a format that this version can't read leaves the others alone."""
    directory.mkdir(parents=True, exist_ok=True)
    for suffix in ("csv", "jsonl", "parquet"):
        _declare(directory, suffix, "append", {"files": _files(f"lineitem.{suffix}", suffix)})
    _declare(directory, "bad", "append", {"files": _files("bad/lineitem.csv", "csv")}, max_reject_share=0.02)
    _declare(directory, "full", "full", {"files": _files("full/{date}/lineitem.csv", "csv")})
    _declare(
        directory,
        "postgres",
        "cursor",
        {"postgres": {"connection": "bench_postgres", "table": "bench.lineitem"}},
        cursor={"column": "updated_at"},
        columns={**_COLUMNS, "updated_at": {"type": "timestamptz", "required": True}},
    )


def environment(sources: Path, data: Path, source_url: str, warehouse_url: str, state: Path) -> dict[str, str]:
    """What a run of ours has to know about its surroundings."""
    return {
        "SLUICE_SOURCES_DIR": str(sources),
        "SLUICE_STATE_DIR": str(state),
        "SLUICE_WAREHOUSE_URL": warehouse_url,
        "AIRFLOW_CONN_BENCH_FILES": f"file://{data}",
        "AIRFLOW_CONN_BENCH_POSTGRES": source_url,
    }


def _files(path: str, kind: str) -> dict[str, str]:
    return {"connection": "bench_files", "path": path, "format": kind}


def _declare(directory: Path, name: str, mode: str, origin: dict[str, Any], **more: Any) -> None:
    table = {"description": "TPC-H lineitem", "from": origin, "mode": mode, "key": _KEY, "columns": _COLUMNS, **more}
    source = {
        "source": name,
        "description": "What the benchmark loads",
        "owner": "bench",
        "tables": {"lineitem": table},
    }
    (directory / f"{name}.yml").write_text(yaml.safe_dump(source, sort_keys=False))
