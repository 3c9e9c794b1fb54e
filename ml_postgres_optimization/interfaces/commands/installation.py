"""``setup`` and ``uninstall``: schema genesis, roles, and what else is ours on a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ml_postgres_optimization.errors import GenesisError, UsageError
from ml_postgres_optimization.interfaces.reporter import Result
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.configuration_watch import record_configuration
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.knob import Scope
from ml_postgres_optimization.safety.permission import grantable
from ml_postgres_optimization.target.postgres.capabilities import require_writable_primary
from ml_postgres_optimization.target.postgres.connection import connect
from ml_postgres_optimization.target.postgres.roles import (
    TUNE,
    RolesPlan,
    make_roles,
    plan_roles,
    removal_statements,
)
from ml_postgres_optimization.target.postgres.schema import (
    install_schema,
    marked_schemas,
    set_retention,
    setup_script,
    uninstall_schema,
)
from ml_postgres_optimization.workload import TABLE_SETS, drop_tables, tables_exist


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
        script = setup_script(session.schema_state().version)
        return Result({"server": where, "sql": script}, (), [script])
    with connect(session.repository_connection, purpose="setup", lock_timeout_seconds=10.0) as connection:
        report = install_schema(connection)
        if session.settings.retention_days is not None:
            set_retention(connection, session.settings.retention_days)
    record_configuration(session)
    done = ", ".join(report.applied) or "nothing to do"
    lines = [f"Schema genesis on {where}: version {report.version_after} ({done})."]
    document = {
        "server": where,
        "version_before": report.version_before,
        "version_after": report.version_after,
        "applied": list(report.applied),
        "lost": list(report.lost),
    }
    lines += [f"This role goes without it: {what}" for what in report.lost]
    return Result(document, (), lines)


def set_up_roles(session: Session, *, dry_run: bool = False) -> Result:
    """Make the roles that observe, advise and tune, or bring their rights up to date; no password is ever set.

    Raises
    ------
    UsageError
        If a retention is chosen too, which belongs to the schema.
    TargetError
        If a role of such a name is not ours.
    PrivilegeMissing
        If our role may not make them.
    """
    settings, target = session.settings, session.target
    if settings.retention_days is not None:
        raise UsageError("--retention-days is of the schema, not of its roles.", "Give it to setup without --roles.")
    require_writable_primary(target.capabilities)
    catalogue = load_catalogue(allowed_by_owner=settings.allow_knob)
    there = target.settings(catalogue.settings_needed)
    with connect(session.connection, purpose="roles") as connection:
        plan = plan_roles(
            connection,
            target.capabilities,
            grantable(catalogue, there),
            kept=[name for name, knob in catalogue.items() if knob.scope is Scope.RESTART],
            with_schema=settings.repository is None,
        )
        if not dry_run:
            make_roles(connection, plan)
    return _roles_result(session, plan, dry_run=dry_run)


def _roles_result(session: Session, plan: RolesPlan, *, dry_run: bool) -> Result:
    document: dict[str, object] = {
        "server": session.connection.display,
        "statements": list(plan.statements),
        "made": list(plan.made),
        "revoked": list(plan.revoked),
        "notes": list(plan.notes),
    }
    if dry_run:
        return Result(document, (), [plan.script])
    done = f"made {', '.join(plan.made)}" if plan.made else "all there; their rights are up to date"
    lines = [f"Roles on {session.connection.display}: {done}."]
    if plan.revoked:
        lines.append(f"Revoked, as no longer tuned: {', '.join(plan.revoked)}.")
    if plan.made:
        lines.append(f"None has a password, so nobody gets in by one yet. In psql: \\password {TUNE}")
    if session.settings.repository is not None:
        lines.append("Schema genesis stands elsewhere: setup --roles --dsn … makes the roles for it there.")
    return Result(document, (), [*lines, *plan.notes])


def uninstall(session: Session, *, dry_run: bool = False) -> Result:
    """Drop schema genesis, our triggers, and our own tables; settings of promoted trials stay in force.

    Raises
    ------
    SchemaForeign
        If schema genesis, or one of our own tables, is not ours.
    TargetError
        If objects of others depend on ours, or a table stays in use.
    """
    dsn = session.connection.dsn_for_driver()
    table_sets = [table_set for table_set in TABLE_SETS if tables_exist(dsn, table_set)]
    load_schemas = [table_set.schema for table_set in table_sets]
    if dry_run:
        session.schema_state()  # refuses what the command itself would refuse
        with connect(session.repository_connection, purpose="uninstall") as connection:
            would = _named(marked_schemas(connection), load_schemas)
        lines = [f"Would drop {what}." for what in would or ("nothing: there is nothing of ours",)]
        return Result({"would_drop": would}, (), lines)
    with session.sole_optimizer() as journal:
        for table_set in table_sets:
            drop_tables(dsn, table_set)
        with _noting(load_schemas), connect(session.repository_connection, purpose="uninstall") as connection:
            dropped = uninstall_schema(connection)
            left = removal_statements(connection)
        done = _named(dropped, load_schemas)
        lines = [f"Dropped {', '.join(done) or 'nothing: there was nothing of ours'}."]
        if journal.state.confirmed:
            lines.append("Promoted settings stay in force; genesis-pg rollback puts back what stood before them.")
        if left:
            lines += ["The roles of setup --roles stay, as other databases may use them; this drops them:", *left]
    return Result({"dropped": done, "roles_stay": list(left)}, (), lines)


@contextmanager
def _noting(load_schemas: Sequence[str]) -> Iterator[None]:
    """Note on an error what is gone already."""
    try:
        yield
    except GenesisError as error:
        if load_schemas:
            error.add_note(f"Schema {', '.join(load_schemas)} is dropped already; the same command drops the rest.")
        raise


def _named(schemas: Iterable[str], load_schemas: Iterable[str]) -> list[str]:
    return [f"schema {name}{' and our triggers' if name == 'genesis' else ''}" for name in (*schemas, *load_schemas)]
