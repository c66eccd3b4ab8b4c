"""Errors that a person reads. Their text is complete: what, where, the decision taken, the next step."""

from typing import Any


def unreachable(error: Any) -> str:
    """Of an `OperationalError` of psycopg's, why there is no session: server, port and answer in one line, in which no
    password stands. libpq's question whether the server runs is left out."""
    if error.sqlstate:
        return str(error.diag.message_primary)
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("\t")]
    return lines[-1].removeprefix("- ").rstrip(".")


class SluiceError(Exception):
    """Base of all of them. `retryable` says whether trying the same again later can help."""

    retryable = False


class SourceUnavailable(SluiceError):
    """The source did not answer, or not with data. `kind` names the failure in a word or two, for the ledger.

    `counts`: it speaks of the connection as a whole, so that many in a row open its circuit.
    """

    retryable = True
    counts = True

    def __init__(self, message: str, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind or type(self).__name__


class SourceRefused(SluiceError):
    """The source refuses who we are; asking again would only lock the account."""

    counts, kind = True, "credentials refused"


class SourceChanged(SourceUnavailable):
    """The source answered, and changed while it was read: nothing is wrong with its connection."""

    counts = False


class ReadBroken(SourceUnavailable):
    """Reading broke off, and it is not known on which side."""

    counts = False


class BadResponse(SourceUnavailable):
    """An answer that is not data: an error page, torn JSON. `body` is kept as a dead letter, capped and redacted."""

    def __init__(self, message: str, *, body: bytes = b"", page: int = 0, kind: str = "BAD_RESPONSE") -> None:
        super().__init__(message, kind=kind)
        self.body, self.page = body, page


class CircuitOpen(SourceUnavailable):
    """The connection failed so often that it is left alone for a while; it was not asked."""

    counts = False


class GateRefused(SluiceError):
    """A batch or a layer was judged and refused. The verdict is in the ledger; nothing was published."""


class LandingLost(SluiceError):
    """What was landed is of no use any more: a crash of the server emptied it, for landing is unlogged, or another
    reading overtook it. Its unit is read anew."""

    retryable = True


class LedgerError(SluiceError):
    """The database refused a step of a batch. The text holds no row's values, as the server's own might."""

    retryable = True


class LeaseHeld(SluiceError):
    """Another run is at work on the same unit."""

    retryable = True


class StaleLease(SluiceError):
    """A later attempt has taken the unit over; this one may not publish."""
