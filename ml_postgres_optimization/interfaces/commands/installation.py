"""``setup`` and ``uninstall``: schema genesis, and what else is ours on a server."""

from __future__ import annotations

from ml_postgres_optimization.interfaces.reporter import Result, Table
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.target.postgres.connection import connect
from ml_postgres_optimization.target.postgres.schema import (
    install_schema,
    set_retention,
    setup_script,
    uninstall_schema,
)
from ml_postgres_optimization.workload import drop_tables, tables_exist


def set_up(session: Session, *, dry_run: bool = False) -> Result:
    """Make schema genesis in the repository, or bring it up to date.

    Raises
    ------
    SchemaForeign
        If a schema of that name belongs to somebody else; nothing is touched then.
    PrivilegeMissing
        If our role may not make it.
    """
    where = session.repository_connection.display
    if dry_run:
        script = setup_script()
        return Result({"server": where, "sql": script}, (), [script])
    with connect(session.repository_connection, purpose="setup", lock_timeout_seconds=10.0) as connection:
        report = install_schema(connection)
        if session.settings.retention_days is not None:
            set_retention(connection, session.settings.retention_days)
    done = ", ".join(report.applied) or "nothing to do"
    lines = [f"Schema genesis on {where}: version {report.version_after} ({done})."]
    lost = [(what,) for what in report.lost]
    document = {
        "server": where,
        "version_before": report.version_before,
        "version_after": report.version_after,
        "applied": list(report.applied),
        "lost": list(report.lost),
    }
    return Result(document, [Table("What this role goes without", ("",), lost)] if lost else [], lines)


def uninstall(session: Session, *, dry_run: bool = False) -> Result:
    """Drop schema genesis, our triggers, and our own tables; settings of promoted trials stay in force.

    Raises
    ------
    SchemaForeign
        If schema genesis or genesis_load is not ours.
    """
    dsn = session.connection.dsn_for_driver()
    load_tables = tables_exist(dsn)
    if dry_run:
        would = [
            "our triggers on watched tables",
            "schema genesis",
            *(["schema genesis_load"] if load_tables else []),
        ]
        return Result({"would_drop": would}, (), [f"Would drop {what}." for what in would])
    installed = session.schema_state().version > 0
    with session.sole_optimizer(), connect(session.repository_connection, purpose="uninstall") as connection:
        uninstall_schema(connection)
    if load_tables:
        drop_tables(dsn)
    done = [
        *(["schema genesis and our triggers"] if installed else []),
        *(["schema genesis_load"] if load_tables else []),
    ]
    lines = [f"Dropped {', '.join(done) or 'nothing: there was nothing of ours'}."]
    lines.append("Promoted settings stay in force; genesis-pg rollback puts back what stood before them.")
    return Result({"dropped": done}, (), lines)
