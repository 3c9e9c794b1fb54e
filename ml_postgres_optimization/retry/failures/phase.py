"""How far an attempt had come when it failed."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What had been sent to the server, as far as that is known."""

    UNKNOWN = "unknown"
    """Nobody said: a COMMIT may have been among it."""
    BEGINNING = "beginning"
    """A transaction was asked for, and nothing else."""
    IN_TRANSACTION = "in transaction"
    """Statements of a transaction that nobody has asked to commit yet."""
    COMMIT_SENT = "commit sent"
    """COMMIT was sent, and not answered."""
    ROLLED_BACK = "rolled back"
    """The transaction is known to have come to nothing."""
