"""`sluice migrate`: the ledger of a warehouse that is used without `make run`."""

from __future__ import annotations

import psycopg

from sluice import ledger, settings
from sluice.errors import SluiceError


def migrate() -> None:
    """Make the ledger in the warehouse, or bring it to what this version expects. Again, it changes nothing.

    `make run` and the image's `init` do this at every start. A database that SLUICE_WAREHOUSE_URL names for `sluice
    load` alone needs it once, and after each upgrade.
    """
    try:
        applied = ledger.migrate(settings.warehouse_url())
    except psycopg.errors.InsufficientPrivilege as error:
        raise SluiceError(
            f"the ledger can't be made: {error.diag.message_primary}; nothing was changed. Let the database's owner "
            "run this, or grant this role create on the database"
        ) from None
    print(f"the ledger was brought up to date, in {len(applied)} steps" if applied else "the ledger is up to date")
