"""Errors that a person reads. Their text is complete: what, where, the decision taken, the next step."""


class SluiceError(Exception):
    """Base of all of them. `retryable` says whether trying the same again later can help."""

    retryable = False


class SourceUnavailable(SluiceError):
    """The source did not answer, or not with data."""

    retryable = True


class GateRefused(SluiceError):
    """A batch or a layer was judged and refused. The verdict is in the ledger; nothing was published."""


class LandingLost(SluiceError):
    """What was landed is no longer whole: landing is unlogged, and a crash of the server empties it."""

    retryable = True


class LedgerError(SluiceError):
    """The database refused a step of a batch. The text holds no row's values, as the server's own might."""

    retryable = True


class LeaseHeld(SluiceError):
    """Another run is at work on the same unit."""

    retryable = True


class StaleLease(SluiceError):
    """A later attempt has taken the unit over; this one may not publish."""
