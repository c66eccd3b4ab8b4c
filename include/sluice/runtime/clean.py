"""`make clean`: remove the local state; without YES=1 it only says what it would remove."""

import argparse
import shutil
import sys
from pathlib import Path

from sluice.errors import SluiceError
from sluice.runtime import surroundings
from sluice.runtime.down import stop_everything
from sluice.runtime.layout import Layout


def removable(layout: Layout) -> list[Path]:
    """What `make run` made and can make again, the databases with all their data included."""
    server = surroundings.embedded_postgres(layout)
    places = [layout.state, layout.dbt_project / "target", layout.dbt_project / "logs"]
    if server.is_known() and not server.data_dir.is_relative_to(layout.state):
        places.insert(0, server.data_dir)
    return [place for place in places if place.exists()]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="make clean", description=__doc__)
    parser.add_argument("--yes", action="store_true", help="really do it")
    really = parser.parse_args().yes
    layout = Layout.from_environment()
    places = removable(layout)
    try:
        if really:
            stop_everything(layout)
            server = surroundings.embedded_postgres(layout)
            if server.is_known():
                server.destroy()
    except SluiceError as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    for place in places:
        print(f"{'removed' if really else 'would remove'} {place}")
        if really:
            shutil.rmtree(place, ignore_errors=True)
    if places and not really:
        print("Nothing was removed. All data of the local warehouse would be gone. To do it: make clean YES=1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
