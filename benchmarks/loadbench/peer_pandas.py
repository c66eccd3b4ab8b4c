"""pandas: read in chunks, `to_sql`. Runs in its own environment: peer_pandas.py FORMAT ORIGIN ROWS TARGET-URL."""

import sys
from itertools import islice

import pandas as pd
import pyarrow.parquet as pq
from phases import reached
from sqlalchemy import create_engine

_CHUNK = 50_000


def chunks(kind, origin):
    """Data frames of the source."""
    if kind == "csv":
        yield from pd.read_csv(origin, chunksize=_CHUNK)
    elif kind == "jsonl":
        yield from pd.read_json(origin, lines=True, chunksize=_CHUNK)
    elif kind == "parquet":
        yield from (batch.to_pandas() for batch in pq.ParquetFile(origin).iter_batches(_CHUNK))
    else:
        with create_engine(_dialect(origin)).connect().execution_options(stream_results=True) as connection:
            yield from pd.read_sql("select * from bench.lineitem", connection, chunksize=_CHUNK)


def _dialect(url):
    return url.replace("postgresql://", "postgresql+psycopg://")


def main(kind, origin, rows, target):
    """Load about as many rows; whole chunks, so that a part of a file costs what it would cost."""
    engine = create_engine(_dialect(target))
    reached("started")
    wanted = -(-int(rows) // _CHUNK)
    for chunk in islice(chunks(kind, origin), wanted):
        chunk.to_sql("pandas", engine, schema="bench", if_exists="append", index=False)
    reached("loaded")


main(*sys.argv[1:])
