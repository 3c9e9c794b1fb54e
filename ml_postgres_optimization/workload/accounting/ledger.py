"""The ledger of a run's operations, kept in the transactions of the operations themselves."""

from __future__ import annotations

from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import AlreadyRunning, IntegrityViolated, TargetError, UsageError
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, LastingConnection
from ml_postgres_optimization.workload.statements import query
from ml_postgres_optimization.workload.tables import refuse_publication


class Ledger:
    """What a run's operations have committed, by runner, and the right to be its runner.

    Every operation that writes adds one to its session's row in the same transaction. Between what the load has seen
    acknowledged, and that with the operations of whose COMMIT it never heard, must lie what the rows add up to.

    Parameters
    ----------
    dsn : str
        Where the tables of the load are.
    run : str

    Attributes
    ----------
    epoch : int
        Of the runner that `take` made; 0 before.

    Notes
    -----
    The right is an advisory lock of a session, and a number in a row: a runner whose session was lost may have been
    overtaken by another one, whose number is higher. Then the seats of its sessions are gone, and their operations
    change nothing. Not thread safe.
    """

    def __init__(self, dsn: str, run: str) -> None:
        settings = ConnectionSettings.from_dsn(dsn)
        self._run = run
        self._session = LastingConnection(settings, "soak", self._lock)
        self.epoch = 0

    def take(self, last_epoch: int, *, is_new: bool) -> int:
        """Become the run's runner, and return its epoch.

        Parameters
        ----------
        last_epoch : int
            Of the last runner that the journal knows.
        is_new : bool
            Whether the run begins, or the tables must know it.

        Raises
        ------
        AlreadyRunning
            If another runner has it.
        UsageError
            If the tables do not know the run: they were made anew, or are another database's; of a new run also if
            the database publishes all its tables.
        ServerUnreachable, PrivilegeMissing, ReadOnlyServer, TargetError
        """

        def taken(connection: Connection[TupleRow]) -> int:
            with connection.transaction():
                if is_new:  # a run that goes on has its tables
                    refuse_publication(connection, "genesis_load")
                connection.execute(query("accounting/create"))
                row = connection.execute(query("accounting/epoch"), {"run": self._run}).fetchone()
                if row is None and not is_new:
                    raise UsageError(
                        f"The tables of the load do not know run {self._run}: they were made anew since, or it ran "
                        "on another database.",
                        "Abandon it (test --abandon), and start another.",
                    )
                epoch = max(last_epoch, row[0] if row else 0) + 1
                parameters = {"run": self._run, "epoch": epoch}
                connection.execute(query("accounting/take" if row else "accounting/enter"), parameters)
                connection.execute(query("accounting/fold"), parameters)
                return epoch

        self.epoch = int(self._session.run(taken, "keep the ledger of the load"))
        return self.epoch

    def forget(self) -> None:
        """Take everything of the run away.

        Raises
        ------
        ServerUnreachable, TargetError
        """

        def forgotten(connection: Connection[TupleRow]) -> None:
            with connection.transaction():
                connection.execute(query("accounting/forget_seats"), {"run": self._run})
                connection.execute(query("accounting/forget"), {"run": self._run})

        self._session.run(forgotten, "take a run out of the ledger of the load")

    def check(self, written_total: int, unclear_total: int | None = None, *, epoch: int | None = None) -> int:
        """Compare a runner's rows with what its load has seen, and return what they add up to.

        Parameters
        ----------
        written_total : int
            Operations that write and were acknowledged.
        unclear_total : int or None
            Those that may have been committed all the same; None while more are under way, or were never reported.
        epoch : int or None
            Of an earlier runner; of this one where None.

        Raises
        ------
        IntegrityViolated
            If an acknowledged operation is not there, or one is there that nobody asked for.
        AlreadyRunning
            If another runner has overtaken this one.
        ServerUnreachable, TargetError
        """
        parameters = {"run": self._run, "epoch": epoch or self.epoch}
        current, committed = self._ask("accounting/committed", parameters)
        if current != self.epoch:
            raise AlreadyRunning(
                f"Run {self._run} was taken over by another runner: its epoch is {current}, and ours {self.epoch}.",
                "Let that one go on; see genesis-pg test --list where it runs.",
            )
        most = None if unclear_total is None else written_total + unclear_total
        if committed < written_total or (most is not None and committed > most):
            limit = f"at least {written_total:,}" if most is None else f"{written_total:,} to {most:,}"
            raise IntegrityViolated(
                f"The ledger of run {self._run}, epoch {parameters['epoch']}, holds {committed:,} operations, and "
                f"must hold {limit}: the server lost acknowledged commits, or did what nobody asked for.",
                "Keep the server's data directory and the run's folder as evidence; do not start the run again.",
            )
        return int(committed)

    def check_balance(self) -> None:
        """See that transfers have kept the sum of all balances; reads the table of accounts once.

        Raises
        ------
        IntegrityViolated
        ServerUnreachable, TargetError
        """
        _, before = self._ask("accounting/epoch", {"run": self._run})
        (now,) = self._ask("accounting/balance", {})
        if Decimal(before) != Decimal(now):
            raise IntegrityViolated(
                f"The balances add up to {now}, and were {before} when run {self._run} began: a transfer was done by "
                "half, or something else has changed schema genesis_load.",
                "Keep the server's data directory and the run's folder as evidence.",
            )

    def close(self) -> None:
        """Give the right back."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, work: Any, doing: str) -> Any:
        """Return what `work` returns for the ledger's session; raises as `LastingConnection.run`."""
        return self._session.run(work, doing)

    def _ask(self, name: str, parameters: dict[str, Any]) -> tuple[Any, ...]:
        def asked(connection: Connection[TupleRow]) -> tuple[Any, ...]:
            row = connection.execute(query(name), parameters).fetchone()
            return row or (0, "0")

        try:
            return tuple(self._session.run(asked, "read the ledger of the load"))
        except psycopg.errors.UndefinedTable as error:
            raise IntegrityViolated(
                f"The tables of run {self._run} are gone: {error.diag.message_primary}.",
                "Somebody dropped schema genesis_load while the test ran; start another run.",
            ) from error

    def _lock(self, connection: Connection[TupleRow]) -> None:
        row = connection.execute(query("accounting/lock"), {"run": self._run}).fetchone()
        if row is not None and row[0]:
            return
        if self.epoch:
            # most likely an earlier session of ours that the server has not missed yet; whoever has overtaken us is
            # known by its epoch
            raise TargetError(
                f"The lock of run {self._run} is still held by a session that was lost.",
                "It is tried again in the next interval.",
            )
        raise AlreadyRunning(
            f"Another runner is at run {self._run}: it holds the run's lock on the server.",
            "Wait until it ends; one that was killed is gone within a minute.",
        )
