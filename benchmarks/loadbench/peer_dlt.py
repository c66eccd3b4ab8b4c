"""dlt, as it comes and as fast as it can. Own environment: peer_dlt.py default|best FORMAT ORIGIN ROWS TARGET-URL.

default: an iterable of rows, and the loader's own choices. best: for CSV the file itself is handed to the loader, with
its columns declared; for the others Arrow tables or Parquet go through ADBC.
"""

import csv
import json
import os
import sys
import tempfile
from itertools import islice

_HOME = tempfile.mkdtemp(prefix="dlt-")
os.environ |= {
    "DLT_DATA_DIR": _HOME,
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
}

import dlt  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.json as pa_json  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from dlt.sources.sql_database import sql_table  # noqa: E402
from phases import reached  # noqa: E402

_NUMBERS = ("l_quantity", "l_extendedprice", "l_discount", "l_tax")
_COLUMNS = {
    **{n: {"data_type": "bigint"} for n in ("l_orderkey", "l_partkey", "l_suppkey", "l_linenumber")},
    **{n: {"data_type": "decimal", "precision": 15, "scale": 2} for n in _NUMBERS},
    **{n: {"data_type": "text"} for n in ("l_returnflag", "l_linestatus")},
    **{n: {"data_type": "date"} for n in ("l_shipdate", "l_commitdate", "l_receiptdate")},
    **{n: {"data_type": "text"} for n in ("l_shipinstruct", "l_shipmode", "l_comment")},
}
_ARROW = {"bigint": pa.int64(), "decimal": pa.decimal128(15, 2), "date": pa.date32(), "text": pa.string()}
_SCHEMA = pa.schema([(name, _ARROW[hint["data_type"]]) for name, hint in _COLUMNS.items()])


def rows_of(kind, origin, rows):
    """Dictionaries, as a dlt resource of one's own would yield them."""
    if kind == "csv":
        with open(origin, newline="") as file:
            yield from islice(csv.DictReader(file), rows)
    elif kind == "jsonl":
        with open(origin) as file:
            yield from map(json.loads, islice(file, rows))
    else:
        batches = pq.ParquetFile(origin).iter_batches(10_000)
        yield from islice((row for batch in batches for row in batch.to_pylist()), rows)


def default(kind, origin, rows):
    """The resource and the loader's arguments."""
    if kind == "postgres":
        return sql_table(_psycopg2(origin), table="lineitem", schema="bench", backend="sqlalchemy").add_limit(
            rows, count_rows=True
        ), {}
    return dlt.resource(rows_of(kind, origin, rows), name="lineitem"), {}


def best(kind, origin, rows):
    """The fastest way that dlt documents for the format."""
    if kind == "postgres":
        table = sql_table(_psycopg2(origin), table="lineitem", schema="bench", backend="pyarrow", chunk_size=100_000)
        return table, {"loader_file_format": "parquet"}
    if kind == "csv":
        item = dlt.mark.with_file_import(origin, "csv", rows)
        return dlt.resource([item], name="lineitem", columns=_COLUMNS), {"loader_file_format": "csv"}
    if kind == "jsonl":
        options = pa_json.ReadOptions(block_size=16 << 20)
        tables = (pa.Table.from_batches([batch]).cast(_SCHEMA) for batch in pa_json.open_json(origin, options))
        return dlt.resource(tables, name="lineitem"), {"loader_file_format": "parquet"}
    hints = pq.ParquetFile(origin).schema_arrow.empty_table()
    item = dlt.mark.with_file_import(origin, "parquet", rows, hints=hints)
    return dlt.resource([item], name="lineitem"), {"loader_file_format": "parquet"}


def _psycopg2(url):
    return url.replace("postgresql://", "postgresql+psycopg2://")


def main(how, kind, origin, rows, target):
    """Extract, normalise and load."""
    pipeline = dlt.pipeline(
        "bench", pipelines_dir=_HOME, destination=dlt.destinations.postgres(target), dataset_name="bench_dlt"
    )
    reached("started")
    resource, options = {"default": default, "best": best}[how](kind, origin, int(rows))
    pipeline.run(resource, **options).raise_on_failed_jobs()
    reached("loaded")


main(*sys.argv[1:])
