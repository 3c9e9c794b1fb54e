"""Every error that this product raises on purpose.

::

    GenesisError
    ├── UsageError                 exit 2: wrong usage, settings or input
    │   └── StateError             the state or log folder cannot be used
    ├── TargetError                exit 3: the server cannot serve us
    │   ├── ServerUnreachable      down, refused, or gone in the middle of the work
    │   ├── AuthenticationFailed   password, certificate or pg_hba.conf said no
    │   ├── UnsupportedVersion     older than PostgreSQL 14
    │   ├── ReadOnlyServer         a standby, or read-only by setting
    │   ├── PrivilegeMissing       the role may not do what was asked
    │   ├── SchemaMissing          schema genesis is not there, or is older than this program
    │   ├── SchemaForeign          schema genesis is there, but is not ours
    │   ├── SchemaNewer            schema genesis was made by a newer version of this program
    │   ├── CommitUnknown          the reply to a COMMIT was lost, and nobody could tell what became of it
    │   ├── CircuitOpen            the server failed again and again, and is left alone for a while
    │   ├── NotAdmitted            too many calls are at work or waiting already
    │   ├── DeadlinePassed         the caller's time was over before anything was tried
    │   └── EmbeddedServerFailed   the server of our own could not be made or started
    ├── ModelError                 exit 1: a model cannot be used
    │   ├── ArtefactRefused        corrupt, foreign or outdated
    │   └── NotEnoughData          too few windows to learn from
    ├── AlreadyApplied             exit 1: an operation with this key was carried out before
    ├── IntegrityViolated          exit 1: the server does not hold what it acknowledged
    ├── SafetyStop                 exit 4: a guard said no; the proven configuration is in force
    │   ├── ChangeRefused          a knob or value that is not allowed, or too much memory
    │   │   └── ForeignChange      somebody else has changed what a change stands on
    │   ├── NotNow                 the owner allows no change at this moment
    │   ├── JournalError           the journal cannot be written or read
    │   └── AlreadyRunning         another optimiser works on this server
    └── Interrupted                exit 130: Ctrl-C or SIGTERM; state is saved

Each carries two lines for the user: what happened (with the value seen and the limit) and the next step.
"""

from __future__ import annotations

from typing import ClassVar

from ml_postgres_optimization.redaction import without_passwords


class GenesisError(Exception):
    """The root of all errors of ours.

    Parameters
    ----------
    what : str
        What happened, with the value seen and the limit; one line. A password in it, where somebody has typed one in
        the wrong place, is blotted out.
    next_step : str
        What the user can do about it; one line.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, next_step: str) -> None:
        self.what = without_passwords(what)
        self.next_step = without_passwords(next_step)
        super().__init__(self.what, self.next_step)

    def __str__(self) -> str:
        return f"{self.what}\n{self.next_step}"


class UsageError(GenesisError):
    """A wrong option, setting or input."""

    exit_code = 2


class StateError(UsageError):
    """The state or log folder cannot be used."""


class TargetError(GenesisError):
    """The server cannot serve us."""

    exit_code = 3


class ServerUnreachable(TargetError):
    """The server is down, refused the connection, or went away in the middle of the work."""


class AuthenticationFailed(TargetError):
    """The server refused the role, its password or its certificate."""


class UnsupportedVersion(TargetError):
    """The server is older than PostgreSQL 14."""


class ReadOnlyServer(TargetError):
    """The server is a standby, or read-only by setting."""


class PrivilegeMissing(TargetError):
    """The role may not do what was asked."""


class SchemaMissing(TargetError):
    """Schema genesis is not there, or is older than this program."""


class SchemaForeign(TargetError):
    """Schema genesis is there, but belongs to somebody else."""


class SchemaNewer(TargetError):
    """Schema genesis was made by a newer version of this program."""


class CommitUnknown(TargetError):
    """The reply to a COMMIT was lost, and nobody could tell whether it was carried out."""


class CircuitOpen(TargetError):
    """The server failed again and again, and is left alone for a while."""


class NotAdmitted(TargetError):
    """Too many calls are at work or waiting already."""


class DeadlinePassed(TargetError):
    """The caller's time was over before anything was tried."""


class EmbeddedServerFailed(TargetError):
    """The server of our own could not be made or started."""


class ModelError(GenesisError):
    """A model cannot be used."""


class ArtefactRefused(ModelError):
    """A stored model is corrupt, foreign or outdated."""


class NotEnoughData(ModelError):
    """There are too few windows to learn from."""


class AlreadyApplied(GenesisError):
    """An operation with this key was carried out before."""


class IntegrityViolated(GenesisError):
    """The ledger of operations does not balance: the server lost what it acknowledged, or did what nobody asked."""


class SafetyStop(GenesisError):
    """A guard said no; the proven configuration is in force."""

    exit_code = 4


class ChangeRefused(SafetyStop):
    """A change is not allowed: a forbidden knob, a value out of range, or too much memory."""


class ForeignChange(ChangeRefused):
    """Somebody else has changed a knob since it was taken for a baseline; theirs stays."""


class NotNow(SafetyStop):
    """The owner of the server allows no change at this moment: a pause, or outside of the windows for changes."""


class JournalError(SafetyStop):
    """The journal of changes cannot be written or read."""


class AlreadyRunning(SafetyStop):
    """Another optimiser works on this server."""


class Interrupted(GenesisError):
    """The user or the system asked us to stop; state is saved."""

    exit_code = 130
