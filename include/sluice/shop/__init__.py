"""The demo company: a small shop that lives beside the pipeline and changes over simulated days.

`init` makes it, `advance` lets days pass; the same seed, scale and start give the same company byte for byte.
"""

from sluice.shop.company import Company
from sluice.shop.params import Params, ShopError
from sluice.shop.proof import clickstream_damage, digest, inventory_damage
from sluice.shop.simulation import Outcome, Status, advance, init, status

__all__ = [
    "Company",
    "Outcome",
    "Params",
    "ShopError",
    "Status",
    "advance",
    "clickstream_damage",
    "digest",
    "init",
    "inventory_damage",
    "status",
]
