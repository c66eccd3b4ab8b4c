"""`make prove`: many stories, and one line at the end that says how many and how many failed."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings

from sluice.runtime.ports import free_port
from sluice.runtime.postgres import EmbeddedPostgres
from tests.conftest import quicken_dbt
from tests.prove.machine import Machine
from tests.prove.streams import Example, examples


def main() -> int:
    """Start a server of its own, run the stories of a seed, print what failed and how to see it again."""
    parser = argparse.ArgumentParser(prog="make prove")
    parser.add_argument("examples", nargs="?", type=int, default=200, help="how many stories (200)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)), help="tell the same stories again")
    asked = parser.parse_args()
    quicken_dbt()
    with tempfile.TemporaryDirectory(prefix="sluice-prove-") as root:
        Path(root).chmod(0o755)
        os.environ["SLUICE_STATE_DIR"] = f"{root}/state"
        server = EmbeddedPostgres(Path(root) / "postgres", free_port(), durable=False)
        try:
            server.start()
            server.create_role("sluice", member_of=("pg_monitor",))
            for name in ("warehouse", "source"):
                server.create_database(name, owner="sluice")
            (Path(root) / "work").mkdir()
            machine = Machine(Path(root) / "work", *(server.url(name, "sluice") for name in ("warehouse", "source")))
            return _tell(machine, asked.examples, asked.seed)
        finally:
            server.destroy()


def _tell(machine: Machine, count: int, number: int) -> int:
    @seed(number)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(example=examples())
    def story(example: Example) -> None:
        machine.run(example)
        if machine.ran % 10 == 0:
            print(f"{machine.ran} stories", file=sys.stderr, flush=True)

    failures = 0
    try:
        story()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        failures = 1
        traceback.print_exception(error)  # hypothesis adds the smallest story to it
        print(f"see it again: make prove ARGS='{count} --seed {number}'")
    print(f"prove: examples={machine.ran} failures={failures}")
    return failures


if __name__ == "__main__":
    sys.exit(main())
