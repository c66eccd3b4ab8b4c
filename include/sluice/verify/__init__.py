"""Prove that the live warehouse is what its change logs say: rebuild it beside itself, and compare row for row.

How both sides come to speak of the same inputs: docs/reference/verify.md.
"""

from sluice.verify.run import Budget, due, verify

__all__ = ["Budget", "due", "verify"]
