"""What a role cannot see of a server, and the statement that mends it."""

from __future__ import annotations

from ml_postgres_optimization.target.capabilities import Capabilities

FIRST_MAJOR_WITH_IO = 16
EXTENSION = "pg_stat_statements"
# the first version that tells top-level queries from those inside functions; came with PostgreSQL 14
OLDEST_EXTENSION = (1, 9)


def hidden_by_privileges(capabilities: Capabilities) -> dict[str, str]:
    """Return the sources that `capabilities.role` sees in part only, and why; none for a monitor."""
    if capabilities.is_monitor or capabilities.is_superuser:
        return {}
    grant = f"GRANT pg_monitor TO {capabilities.grantee}"
    return {
        "activity": f"what the sessions of other roles do is hidden from {capabilities.role}: {grant}",
        "statements": f"the queries of other roles are hidden from {capabilities.role}: {grant}",
    }


def unavailable(capabilities: Capabilities) -> dict[str, str]:
    """Return the sources that this server does not have at all, and why."""
    reasons = {"io": _why_no_io(capabilities), "statements": _why_no_statements(capabilities)}
    return {source: reason for source, reason in reasons.items() if reason}


def _why_no_io(capabilities: Capabilities) -> str | None:
    if capabilities.major >= FIRST_MAJOR_WITH_IO:
        return None
    return f"PostgreSQL {capabilities.major} does not count it; {FIRST_MAJOR_WITH_IO} and later do"


def _why_no_statements(capabilities: Capabilities) -> str | None:
    if not capabilities.has_extension(EXTENSION):
        return f"{EXTENSION} is not installed in {capabilities.database}: {_how_to_install(capabilities)}"
    version, _ = capabilities.extensions[EXTENSION]
    if tuple(int(part) for part in version.split(".")) < OLDEST_EXTENSION:
        return f"{EXTENSION} is still at version {version}: ALTER EXTENSION {EXTENSION} UPDATE"
    return None


def _how_to_install(capabilities: Capabilities) -> str:
    create = f"CREATE EXTENSION {EXTENSION}"
    if EXTENSION in (capabilities.preloaded or ()):
        return create
    preload = f"add it to shared_preload_libraries, restart, then {create}"
    if EXTENSION in capabilities.available_extensions:
        return preload
    return f"install PostgreSQL's contrib modules, {preload}"
