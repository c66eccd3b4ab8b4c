"""One load by Sluice, through the functions that the DAG calls: ours.py SOURCE TABLE. Ends with its books as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys

from phases import reached

from sluice import settings
from sluice.declarations import load_folder
from sluice.loading import RunContext, audit, land, publish


def main(source_name: str, table_name: str) -> None:
    """Land, audit, publish; a phase each."""
    found = load_folder(settings.sources_dir())
    if source_name not in found.sources:
        raise SystemExit(" ".join(str(fault) for fault in found.faults if source_name in fault.file))
    source = found.sources[source_name]
    reached("started")
    batch_ids = land(source, source.tables[table_name], RunContext("bench"))
    reached("landed")
    audit(batch_ids)
    reached("audited")
    done = publish(batch_ids)
    reached("published")
    print(json.dumps([dataclasses.asdict(one) for one in done]))


if __name__ == "__main__":
    main(*sys.argv[1:])
