"""Settings as commands of the clouds' own programs; names in capitals are the user's to fill in."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ml_postgres_optimization.knobs.dialects.item import Item, names_of


def amazon_rds(items: Sequence[Item]) -> tuple[str, ...]:
    """Return calls for the instance's parameter group, one for each parameter: a refused one refuses its whole call.

    Examples
    --------
    >>> print("\\n".join(amazon_rds([Item("shared_buffers", 16384, "8kB", needs_restart=True)])))
    aws rds modify-db-parameter-group --db-parameter-group-name GROUP --parameters \\
        ParameterName=shared_buffers,ParameterValue=16384,ApplyMethod=pending-reboot
    # Then, for shared_buffers: aws rds reboot-db-instance --db-instance-identifier INSTANCE

    References
    ----------
    Amazon RDS API Reference, ModifyDBParameterGroup: ``immediate`` with dynamic parameters only. Amazon RDS User
    Guide, "Working with parameters": values stand without a unit, in that of ``pg_settings``; a boolean is 0 or 1.
    """
    return _amazon(items, "modify-db-parameter-group --db-parameter-group-name")


def amazon_aurora(items: Sequence[Item]) -> tuple[str, ...]:
    """Return calls for the cluster's parameter group, which holds for all of its instances."""
    return _amazon(items, "modify-db-cluster-parameter-group --db-cluster-parameter-group-name")


def _amazon(items: Sequence[Item], call: str) -> tuple[str, ...]:
    lines: list[str] = []
    for item in items:
        lines += [f"aws rds {call} GROUP --parameters \\", f"    {shlex.quote(_parameter(item))}"]
    reboot = "aws rds reboot-db-instance --db-instance-identifier INSTANCE"
    return (*lines, *_then(items, reboot))


def _parameter(item: Item) -> str:
    method = "pending-reboot" if item.needs_restart else "immediate"
    value = str(int(item.value)) if isinstance(item.value, bool) else item.plain
    return f"ParameterName={item.name},ParameterValue={value},ApplyMethod={method}"


def cloud_sql(items: Sequence[Item]) -> tuple[str, ...]:
    """Return the call that sets the instance's flags; as it takes all others away, it fails until they are filled in.

    References
    ----------
    Google, "Configure database flags" (Cloud SQL for PostgreSQL): the command overwrites all flags that were set
    before; a number stands without a unit; the instance may be restarted.
    """
    flags = ",".join(f"{item.name}={item.plain}" for item in items)
    return (
        "# It replaces ALL flags: for EXISTING_FLAGS write those that are set now, as name=value, which this shows:",
        "gcloud sql instances describe INSTANCE --format='value(settings.databaseFlags)'",
        f"gcloud sql instances patch INSTANCE --database-flags={shlex.quote('EXISTING_FLAGS,' + flags)}",
        *_restarted(items),
    )


def _restarted(items: Sequence[Item]) -> tuple[str, ...]:
    at_start = [item for item in items if item.needs_restart]
    return (f"# It restarts the instance for {names_of(at_start)}",) if at_start else ()


def azure(items: Sequence[Item]) -> tuple[str, ...]:
    """Return a call for each server parameter of a flexible server.

    Examples
    --------
    >>> azure([Item("work_mem", 65536, "kB")])[0]
    'az postgres flexible-server parameter set -g RESOURCE_GROUP -s SERVER --name work_mem --value 65536'

    References
    ----------
    Microsoft, ``az postgres flexible-server parameter set``; a number stands in the unit of ``pg_settings``.
    """
    call = "az postgres flexible-server parameter set -g RESOURCE_GROUP -s SERVER"
    lines = (f"{call} --name {item.name} --value {shlex.quote(item.plain)}" for item in items)
    restart = "az postgres flexible-server restart -g RESOURCE_GROUP -n SERVER"
    return (*lines, *_then(items, restart))


def _then(items: Sequence[Item], command: str) -> tuple[str, ...]:
    at_start = [item for item in items if item.needs_restart]
    return (f"# Then, for {names_of(at_start)}: {command}",) if at_start else ()
