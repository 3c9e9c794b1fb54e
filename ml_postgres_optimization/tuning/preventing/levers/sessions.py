"""Levers that concern single sessions, roles and tables: one acts by permission, the others advise."""

from __future__ import annotations

from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.tuning.preventing.danger import Danger
from ml_postgres_optimization.tuning.preventing.levers.lever import Offer, Sight

_MANY_DEAD_RATIO = 0.2
_MANY_DEAD_ROWS = 10_000


class EndBlocker:
    """End a session that is idle in a transaction, and keeps others waiting.

    Parameters
    ----------
    is_permitted : bool
        Whether the owner has said so; otherwise it is advised.
    """

    name = "blocker"

    def __init__(self, *, is_permitted: bool = False) -> None:
        self._is_permitted = is_permitted

    def offer(self, danger: Danger, sight: Sight) -> Offer | None:
        """Return the end of the session that is the cause of the danger."""
        blocker = danger.blocker
        if blocker is None:
            return None
        if self._is_permitted:
            return Offer(self.name, f"end session {blocker.pid} of role {blocker.role}", blocker=blocker)
        return Offer(
            self.name,
            f"have it commit or roll back, or SELECT pg_terminate_backend({blocker.pid}); "
            "--prevent-terminate lets us do so",
        )


class RoleTimeouts:
    """Advise time limits for the role whose transactions keep others waiting."""

    name = "role time-outs"

    def offer(self, danger: Danger, sight: Sight) -> Offer | None:
        """Return statements for whoever owns the role."""
        waiting = sight.window.gauges.get("activity.blocked_sessions", 0.0)
        if danger.error_class not in (ErrorClass.TIMEOUT, ErrorClass.DEADLOCK) or waiting <= 0:
            return None
        limits = "SET idle_in_transaction_session_timeout = '10s', and SET lock_timeout = '2s'"
        return Offer(self.name, f"ALTER ROLE of the application {limits}: {waiting:.1f} sessions wait for locks")


class Autovacuum:
    """Advise a vacuum where dead rows are many."""

    name = "autovacuum"

    def offer(self, danger: Danger, sight: Sight) -> Offer | None:
        """Return how many dead rows there are, and what to do about them."""
        dead = sight.window.gauges.get("tables.dead_tuples", 0.0)
        live = sight.window.gauges.get("tables.live_tuples", 0.0)
        if danger.error_class is not ErrorClass.TIMEOUT or dead < max(_MANY_DEAD_ROWS, _MANY_DEAD_RATIO * live):
            return None
        advice = (
            "VACUUM the tables with the most (pg_stat_user_tables.n_dead_tup), and let autovacuum come sooner there"
        )
        return Offer(self.name, f"{dead:,.0f} rows are dead and {live:,.0f} alive: {advice}")
