"""Levers that concern single sessions, roles and tables: they act by permission, else they advise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ml_postgres_optimization.knobs.configuration import RoleSetting
from ml_postgres_optimization.knobs.knob import Setting
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.target.seen import BloatedTable
from ml_postgres_optimization.tuning.preventing.danger import Danger
from ml_postgres_optimization.tuning.preventing.levers.lever import Offer, Sight

# Twice deadlock_timeout, so that a deadlock is still told as one; and what leaves time for an answer from elsewhere.
_MILLISECONDS = {"idle_in_transaction_session_timeout": 10_000, "lock_timeout": 2_000}
_MANY_DEAD_RATIO = 0.2
_MANY_DEAD_ROWS = 10_000
ReadSettings = Callable[[Iterable[str]], Mapping[str, Setting]]
FindTable = Callable[[], BloatedTable | None]


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
    """Give time limits to the new sessions of roles that the owner has named; without any, advise it.

    Whoever waits for a lock gives up after 2 s then, and who is idle in a transaction is ended after 10 s, so that
    nobody keeps others waiting for longer. Sessions that are open keep what they have.

    Parameters
    ----------
    roles : sequence of str
        Named by the owner.
    database : str
        In which they are given it.
    read : callable
        Returns the live settings that go by these keys, of those that there are.
    """

    name = "role time-outs"

    def __init__(self, roles: Sequence[str] = (), database: str = "", read: ReadSettings = lambda _keys: {}) -> None:
        self._keys = {
            RoleSetting(name, role, database).key: limit for role in roles for name, limit in _MILLISECONDS.items()
        }
        self._roles = tuple(roles)
        self._read = read

    def offer(self, danger: Danger, sight: Sight) -> Offer | None:
        """Return the limits of those roles that have none, or longer ones; a statement where none was named."""
        waiting = sight.window.gauges.get("activity.blocked_sessions", 0.0)
        if danger.error_class not in (ErrorClass.TIMEOUT, ErrorClass.DEADLOCK) or waiting <= 0:
            return None
        if not self._keys:
            limits = "SET idle_in_transaction_session_timeout = '10s', and SET lock_timeout = '2s'"
            advice = f"ALTER ROLE of the application {limits}, or --prevent-role NAME lets us do so"
            return Offer(self.name, f"{advice}: {waiting:.1f} sessions wait for locks")
        live = self._read(self._keys)
        values = {key: limit for key, limit in self._keys.items() if key in live and _is_longer(live[key], limit)}
        if not values:
            return None
        roles = ", ".join(self._roles)
        limits = "2 s to wait for a lock, 10 s idle in a transaction"
        return Offer(self.name, f"{limits}, for new sessions of {roles}; those that are open keep theirs", values)


def _is_longer(setting: Setting, limit: int) -> bool:
    """Tell whether a time limit is longer than `limit`; 0 is none at all."""
    value = setting.value
    return not isinstance(value, str) and (value == 0 or value > limit)


class VacuumTable:
    """Vacuum the table with the most dead rows, where they are many; without the owner's word, advise it.

    Parameters
    ----------
    is_permitted : bool
        Whether the owner has said so.
    find : callable
        Returns that table, or None.
    """

    name = "vacuum"

    def __init__(self, *, is_permitted: bool = False, find: FindTable = lambda: None) -> None:
        self._is_permitted = is_permitted
        self._find = find

    def offer(self, danger: Danger, sight: Sight) -> Offer | None:
        """Return the vacuum of a table of which a fifth is dead, or how many rows are and what to do about them."""
        dead = sight.window.gauges.get("tables.dead_tuples", 0.0)
        live = sight.window.gauges.get("tables.live_tuples", 0.0)
        if danger.error_class is not ErrorClass.TIMEOUT:
            return None
        table = self._find() if self._is_permitted else None
        if table and table.may_be_vacuumed and not table.is_vacuumed and _is_many(table.dead_rows, table.live_rows):
            rows = f"{table.dead_rows:,} of its rows are dead and {table.live_rows:,} alive"
            return Offer(self.name, f"VACUUM {table}, as gently as autovacuum does: {rows}", table=table)
        if not _is_many(dead, live):
            return None
        advice = (
            "VACUUM the tables with the most (pg_stat_user_tables.n_dead_tup), and let autovacuum come sooner there; "
            "--prevent-vacuum lets us vacuum a table that our role may"
        )
        return Offer(self.name, f"{dead:,.0f} rows are dead and {live:,.0f} alive: {advice}")


def _is_many(dead: float, live: float) -> bool:
    return dead >= max(_MANY_DEAD_ROWS, _MANY_DEAD_RATIO * live)
