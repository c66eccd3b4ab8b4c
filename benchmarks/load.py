"""The loader and its peers side by side, in one run, on the same rows: CSV, JSON Lines, Parquet, Postgres → Postgres.

    make bench-load
    make bench-load ARGS='--rows 6000000'
    make bench-load ARGS='--peers none --only csv'

Starts a durable PostgreSQL of its own below `.sluice/bench`, generates TPC-H lineitem, makes a virtual environment for
each peer (once), and runs everybody in turn. The table goes to `benchmarks/results/load.md`, or to
`.sluice/bench/load.md` when only a part was measured. The last line is
`load: csv=<ratio> jsonl=<ratio> parquet=<ratio> postgres=<ratio> rss_growth=<ratio>`: our wall time by that of raw
`psql \\copy`, and our peak memory by that at a sixth of the rows.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from loadbench import report
from loadbench.contenders import FORMATS
from loadbench.environments import PEERS, Environments
from loadbench.rounds import Benchmark
from loadbench.warehouse import Server

from sluice import settings

_HERE = Path(__file__).resolve().parent


def main() -> int:
    """Read the options, prepare, measure, write, clean up."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that what was started ends too
    bench = settings.home() / ".sluice" / "bench"
    bench.mkdir(parents=True, exist_ok=True)
    made = Environments(bench / "environments")
    for name in ("data", *options.peers):
        _say(f"environment of {name}: {made.versions(name)}")
        made.make(name)
    server = Server(bench / "server")
    benchmark = Benchmark(options, bench, server, made)
    try:
        server.start()
        benchmark.prepare()
        facts = benchmark.facts()
        benchmark.run()
    finally:
        server.destroy()
        if not options.keep:
            benchmark.tidy()
    page = report.markdown(benchmark.results, facts)
    whole = set(options.only) == set(FORMATS) and set(options.peers) == set(PEERS)
    target = _HERE / "results" / "load.md" if whole else bench / "load.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(page)
    _say(page)
    _say(f"written to {target}")
    print(benchmark.results.last_line())
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="how many rows to load (default 1000000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often raw copy and ours are run (default 3)")
    parser.add_argument("--peer-rounds", type=int, default=1, help="how often the peers are run (default 1)")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"none, or some of {','.join(PEERS)} (default all)")
    parser.add_argument("--only", default=",".join(FORMATS), help=f"some of {','.join(FORMATS)} (default all)")
    parser.add_argument("--keep", action="store_true", help="keep the generated data for the next run")
    parser.add_argument("--note", default="", help="what else the machine was doing: a word for the table")
    options = parser.parse_args()
    options.peers = [] if options.peers == "none" else options.peers.split(",")
    options.only = options.only.split(",")
    for given, known in ((options.peers, PEERS), (options.only, FORMATS)):
        if unknown := set(given) - set(known):
            parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(known)}")
    return options


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
