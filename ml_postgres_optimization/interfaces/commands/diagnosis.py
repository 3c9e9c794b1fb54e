"""``doctor``: what works, what does not, and the command that mends it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ml_postgres_optimization.errors import GenesisError, StateError, TargetError
from ml_postgres_optimization.interfaces.home import Home
from ml_postgres_optimization.interfaces.reporter import Reporter, Result, Table
from ml_postgres_optimization.interfaces.session import Session, open_session
from ml_postgres_optimization.interfaces.settings import Settings
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.safety.permission import (
    change_grants,
    fallback,
    grantable,
    guard_grants,
    has_parameter_grants,
    visibility_grants,
)
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.postgres.capabilities import clock_ahead_seconds
from ml_postgres_optimization.target.postgres.guard_session import GuardSession
from ml_postgres_optimization.target.postgres.queries import alter_list_text

# Windows carry the server's time and ours: beyond a second they no longer fit together.
CLOCK_SKEW_SECONDS = 1.0
# A day of windows takes about 100 MB; below this a run could stop half-way.
DISK_FREE_BYTES = 1_000_000_000
_USEFUL_EXTENSIONS = {
    "pg_stat_statements": "latency and plans of single queries; on sessions that are not ours, any latency at all",
    "dblink": "a guard inside the server that reverts within a second of our death",
    "pgstattuple": "measured, not estimated, table bloat",
}


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    name : str
        Stable, for programs: ``privileges.alter_system``.
    state : State
    found : str
        What was seen, and what is lost by it.
    mend : str
        The command that mends it; empty when nothing is to mend.
    """

    name: str
    state: State
    found: str
    mend: str = ""


def diagnose(settings: Settings, home: Home, environ: Mapping[str, str], reporter: Reporter) -> Result:
    """Look at everything that the product needs; an unreachable server is a finding, not the end.

    Returns
    -------
    Result
        Exit code 0 when nothing fails (warnings are allowed), 3 when the server cannot be used, else 1.
    """
    checks: list[Check] = []
    exit_code = 0
    try:
        home.prepare()
        checks.append(Check("folders", State.OK, f"state in {home.state}, logs in {home.logs}"))
        checks.append(_disk("disk.logs", home.logs))
        with open_session(settings, home, environ, reporter, read_only=True) as session:
            checks.extend(_server_checks(session))
    except GenesisError as error:
        checks.append(Check(_concerned(error), State.FAILURE, error.what, error.next_step))
        exit_code = error.exit_code
    failed = any(check.state is State.FAILURE for check in checks)
    return _result(checks, exit_code or int(failed))


def _concerned(error: GenesisError) -> str:
    if isinstance(error, StateError):
        return "folders"
    return "server" if isinstance(error, TargetError) else "settings"


def _result(checks: list[Check], exit_code: int) -> Result:
    rows = [(check.state.upper(), check.name, check.found) for check in checks]
    # outside of the table, whole, so that they can be copied
    mends = [f"{check.name}: {check.mend}" for check in checks if check.mend]
    counts = ", ".join(f"{sum(check.state is state for check in checks)} {state}" for state in State)
    document = {
        "checks": [
            {"name": check.name, "state": str(check.state), "found": check.found, "mend": check.mend}
            for check in checks
        ]
    }
    lines = [*(["What mends it:", *mends] if mends else []), counts]
    return Result(document, [Table("Doctor", ("", "check", "found"), rows, unbroken=2)], lines, exit_code)


def _server_checks(session: Session) -> Iterator[Check]:
    capabilities, machine = session.target.capabilities, session.target.machine
    yield Check("server", State.OK, f"{session.connection.display}: PostgreSQL {capabilities.version}")
    yield from _role(capabilities)
    yield from _privileges(session)
    yield from _extensions(capabilities)
    yield _managers(capabilities)
    yield _memory(machine)
    yield _server_disk(machine)
    yield _clock(session)
    yield _guard_session(session)
    yield _schema(session)


def _role(capabilities: Capabilities) -> Iterator[Check]:
    if capabilities.in_recovery:
        yield Check("writable", State.FAILURE, "a standby: it can be observed, not tuned", "connect to the primary")
    elif capabilities.read_only:
        mend = f"ALTER ROLE {capabilities.grantee} SET default_transaction_read_only = off;"
        yield Check("writable", State.FAILURE, "sessions are read-only by setting", mend)
    else:
        yield Check("writable", State.OK, "a primary that takes writes")


def _privileges(session: Session) -> Iterator[Check]:
    capabilities = session.target.capabilities
    if capabilities.is_monitor:
        yield Check("privileges.monitor", State.OK, "sees the sessions and statements of all roles")
    else:
        found = "not a member of pg_monitor: waits and statements of other roles stay unseen"
        yield Check("privileges.monitor", State.WARNING, found, f"GRANT pg_monitor TO {capabilities.grantee};")
    if _is_managed(capabilities):
        return  # no grant would help: another check tells who sets them
    if not capabilities.settings_visible and (has_parameter_grants(capabilities) or capabilities.may_alter_system):
        found = "cannot see what postgresql.auto.conf says, so nothing could be put back: no setting is changed"
        yield Check("privileges.visibility", State.WARNING, found, visibility_grants(capabilities))
    yield _alter_system(session)


def _is_managed(capabilities: Capabilities) -> bool:
    return bool(capabilities.managed_by) or not capabilities.alter_system_allowed


def _alter_system(session: Session) -> Check:
    """Look which of our knobs the role may change; what somebody else manages is told by another check."""
    name, capabilities, catalogue = "privileges.alter_system", session.target.capabilities, load_catalogue()
    if capabilities.may_alter_system is True and capabilities.may_reload:
        return Check(name, State.OK, "may change every setting")
    wanted = grantable(catalogue, session.target.settings(catalogue.settings_needed))
    may = capabilities.may_alter_system if isinstance(capabilities.may_alter_system, frozenset) else frozenset()
    if not (may and capabilities.may_reload):
        found = f"may not change settings and reload: {fallback(capabilities)}"
        return Check(name, State.WARNING, found, _grants(wanted, capabilities))
    if missing := [setting for setting in wanted if setting not in may]:
        found = f"may change {len(wanted) - len(missing)} settings that we tune, and not {', '.join(missing)}"
        return Check(name, State.WARNING, found, _grants(missing, capabilities))
    return Check(name, State.OK, f"may change all {len(wanted)} settings that we tune here")


def _grants(names: Iterable[str], capabilities: Capabilities) -> str:
    if has_parameter_grants(capabilities):
        return change_grants(names, capabilities)
    return f"PostgreSQL {capabilities.major} lets only superusers do it: connect as one"


def _extensions(capabilities: Capabilities) -> Iterator[Check]:
    for name, gives in _USEFUL_EXTENSIONS.items():
        if capabilities.has_extension(name):
            yield Check(f"extension.{name}", State.OK, f"version {capabilities.extensions[name][0]}")
        elif name in capabilities.available_extensions:
            yield Check(
                f"extension.{name}", State.WARNING, f"not installed; it gives {gives}", _install(name, capabilities)
            )
        else:
            mend = "install PostgreSQL's contrib package on the server"
            yield Check(f"extension.{name}", State.WARNING, f"not available; it gives {gives}", mend)


def _install(name: str, capabilities: Capabilities) -> str:
    create = f"CREATE EXTENSION {name};"
    if name != "pg_stat_statements" or name in (capabilities.preloaded or ()):
        return create
    if capabilities.preloaded is None:  # a statement that named it alone would drop all others
        return (
            f"shared_preload_libraries is hidden from role {capabilities.role}: have a superuser add {name} at its "
            f"end, if it is not there, and restart; then {create}"
        )
    return f"{alter_list_text('shared_preload_libraries', [*capabilities.preloaded, name])} restart; {create}"


def _managers(capabilities: Capabilities) -> Check:
    if capabilities.managed_by:
        found = f"{capabilities.managed_by} manages the settings, so none is changed: {fallback(capabilities)}"
        mend = f"genesis-pg optimize --dry-run prints it ready for {capabilities.managed_by}"
        return Check("managers", State.WARNING, found, mend)
    if not capabilities.alter_system_allowed:
        mend = (
            "set allow_alter_system = on in postgresql.conf, if nobody else manages it; or take what optimize advises"
        )
        found = f"allow_alter_system is off: {fallback(capabilities)}"
        return Check("managers", State.WARNING, found, mend)
    return Check("managers", State.OK, "nobody else is seen to manage the configuration")


def _memory(machine: Machine) -> Check:
    found = (
        f"{machine.memory_limit_bytes / 2**30:.1f} GiB ({machine.memory_limit_source}), {machine.cpus:g} processors"
    )
    if machine.memory_limit_source == "assumed":
        return Check("memory", State.WARNING, found, "say what the server may use: --memory-limit-bytes")
    return Check("memory", State.OK, found)


def _server_disk(machine: Machine) -> Check:
    if machine.disk_free_bytes is None:
        found = "the server's disk cannot be seen from here: max_wal_size stays as it is"
        return Check("disk.data", State.WARNING, found, "run on the server's machine")
    return _free("disk.data", machine.disk_free_bytes)


def _disk(name: str, folder: Path) -> Check:
    return _free(name, shutil.disk_usage(folder).free)


def _free(name: str, free_bytes: int) -> Check:
    found = f"{free_bytes / 1e9:.1f} GB free"
    if free_bytes < DISK_FREE_BYTES:
        return Check(name, State.FAILURE, f"{found}, below {DISK_FREE_BYTES / 1e9:g} GB", "make room")
    return Check(name, State.OK, found)


def _clock(session: Session) -> Check:
    ahead = clock_ahead_seconds(session.connection, session.clock)
    found = f"the server's clock is {ahead:+.3f} s from ours"
    if abs(ahead) > CLOCK_SKEW_SECONDS:
        return Check("clock", State.WARNING, found, "synchronise both (chrony, systemd-timesyncd)")
    return Check("clock", State.OK, found)


def _guard_session(session: Session) -> Check:
    """Open one, and close it again: nothing else shows that the server lets our role in by itself."""
    name, target, capabilities = "protection.guard_session", session.target, session.target.capabilities
    try:
        GuardSession.open(target.settings_of_connection, capabilities).close()
    except GenesisError as reason:
        found = f"during a trial the watchdog stands by alone: {reason.what}"
        lacks_grants = capabilities.has_extension("dblink") and capabilities.settings_visible
        grants = lacks_grants and not capabilities.is_superuser
        return Check(name, State.WARNING, found, guard_grants(capabilities) if grants else reason.next_step)
    return Check(name, State.OK, "a session inside of the server can put back what is on trial")


def _schema(session: Session) -> Check:
    state = session.schema_state()
    if state.ready:
        return Check("schema", State.OK, f"version {state.version}")
    return Check("schema", State.WARNING, state.description, "genesis-pg setup")
