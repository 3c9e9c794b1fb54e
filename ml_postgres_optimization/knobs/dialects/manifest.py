"""Settings for Patroni and for CloudNativePG, whose values are YAML."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from ml_postgres_optimization.knobs.dialects.item import Item, names_of

# Patroni takes these from the cluster's configuration only, never from a node's own file, and passes them on the
# command line, where they win over everything (patroni: docs/patroni_configuration.rst).
PINNED_BY_PATRONI = frozenset(
    {"max_connections", "max_locks_per_transaction", "max_prepared_transactions", "max_replication_slots"}
    | {"max_wal_senders", "max_worker_processes", "track_commit_timestamp", "wal_level", "wal_log_hints"}
)


def patroni(items: Sequence[Item]) -> tuple[str, ...]:
    r"""Return the command that merges them into the cluster's configuration; Patroni then brings it to every node.

    It shows what it changes, and asks before it does.

    Examples
    --------
    >>> print("\n".join(patroni([Item("jit", False)])))
    patronictl edit-config CLUSTER \
        -p 'jit="off"'

    References
    ----------
    Patroni, docs/dynamic_configuration.rst and docs/patronictl.rst (edit-config, whose ``-p`` takes YAML; restart).
    """
    pinned = [item for item in items if item.name in PINNED_BY_PATRONI]
    at_start = [item for item in items if item.needs_restart]
    given = [f"    -p {shlex.quote(f'{item.name}={json.dumps(item.text)}')}" for item in items]
    lines = ["patronictl edit-config CLUSTER \\", *(f"{each} \\" for each in given[:-1]), given[-1]]
    if pinned:
        lines.append(f"# Not in a node's own patroni.yml, where Patroni overlooks it: {names_of(pinned)}")
    if at_start:
        lines.append(f"# Then, for {names_of(at_start)}: patronictl restart CLUSTER")
    return tuple(lines)


def cloudnativepg(items: Sequence[Item]) -> tuple[str, ...]:
    """Return what goes into the Cluster; the operator reloads, and restarts where that is needed.

    Examples
    --------
    >>> print("\\n".join(cloudnativepg([Item("work_mem", 65536, "kB")])))
    # In the manifest of the Cluster, then kubectl apply:
    spec:
      postgresql:
        parameters:
          work_mem: '64MB'

    References
    ----------
    CloudNativePG, "PostgreSQL Configuration": every value is a string.
    """
    lines = ["# In the manifest of the Cluster, then kubectl apply:", "spec:", "  postgresql:", "    parameters:"]
    lines += [f"      {item.name}: {_scalar(item.text)}" for item in items]
    if at_start := [item for item in items if item.needs_restart]:
        lines.append(f"# The operator restarts the instances for {names_of(at_start)}")
    return tuple(lines)


def _scalar(text: str) -> str:
    """Quote it: YAML takes a bare ``on`` for a boolean."""
    return "'" + text.replace("'", "''") + "'"
