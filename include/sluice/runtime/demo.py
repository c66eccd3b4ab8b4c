"""The demo shop beside the pipeline: made once, served while the stack runs."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from sluice import shop
from sluice.runtime.faults import RuntimeFault
from sluice.runtime.layout import Layout, number
from sluice.runtime.processes import Supervisor

_ANSWERS_WITHIN_SECONDS = 60


def ensure_shop(database_url: str, files: Path, note: Callable[[str], None]) -> None:
    """Make the company that SLUICE_SHOP_SEED, _SCALE and _DAYS describe; what is done already is not done
    again."""
    default = shop.Params()
    try:
        scale = float(os.environ.get("SLUICE_SHOP_SCALE") or default.scale)
        params = shop.Params(seed=number("SLUICE_SHOP_SEED", default.seed), scale=scale)
    except ValueError as error:
        raise RuntimeFault(f"SLUICE_SHOP_SCALE cannot be used: {error}") from None
    days = number("SLUICE_SHOP_DAYS", 14)
    files.mkdir(parents=True, exist_ok=True)
    try:
        shop.init(database_url, files, params, days, on_day=lambda done, all_: note(f"day {done} of {all_}"))
    except shop.ShopError as error:
        raise RuntimeFault(f"the demo shop could not be made: {error}") from None


def serve_shop(supervisor: Supervisor, layout: Layout, environment: Mapping[str, str]) -> None:
    """Start the shop's API and wait until it answers."""
    command = [sys.executable, "-c", "from sluice.shop.cli import app; app()", "serve"]
    command += ["--host", "127.0.0.1", "--port", str(layout.shop_port)]
    supervisor.spawn("shop-api", command, environment, layout.state)
    deadline = time.monotonic() + _ANSWERS_WITHIN_SECONDS
    while not _answers(layout.shop_port):
        supervisor.check()
        if time.monotonic() > deadline:
            raise RuntimeFault(f"the shop's API does not answer on port {layout.shop_port}; see {layout.logs}")
        time.sleep(0.2)


def _answers(port: int) -> bool:
    """Any answer is one: it refuses those who bring no key."""
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return True
