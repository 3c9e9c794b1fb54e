"""The workloads that a server can be tuned for: ours, two well-known ones, and the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.mix import Mix
from ml_postgres_optimization.workload.operation import LEVELS
from ml_postgres_optimization.workload.script import ScriptMix, parse_script, read_workload
from ml_postgres_optimization.workload.tables import ANALYTIC_TABLES, LOAD_TABLES, TPCB_TABLES, TableSet

GENESIS, TPCB, ANALYTIC = "genesis", "tpcb", "analytic"
_LOCK_TIMEOUT = "60s"


@dataclass(frozen=True, slots=True)
class Workload:
    """What a server is tuned for.

    Parameters
    ----------
    name : str
    mix : Mix
    clients : int
        Users in flight, in a closed loop; as many connections.
    table_set : TableSet or None
        Tables of ours that it works on; None where the tables are the user's.
    scale : float
        Of these.
    setup : tuple of str
        Statements that prepare a server of our own for it.
    is_open_loop : bool
        Whether a rate is offered, a share of the capacity; otherwise clients ask as soon as they are answered.
    """

    name: str
    mix: Mix
    clients: int
    table_set: TableSet | None = None
    scale: float = 1.0
    setup: tuple[str, ...] = ()
    is_open_loop: bool = False


def workload_named(
    wanted: str,
    *,
    level: str = "HIGH",
    scale: float | None = None,
    clients: int | None = None,
    query_timeout_seconds: float = 60.0,
) -> Workload:
    """Return the workload of that name, or of the folder of that path.

    Parameters
    ----------
    wanted : str
        ``genesis``, ``tpcb``, ``analytic`` or a folder with scripts of pgbench's syntax.
    level : str
        Of ``genesis``.
    scale : float, optional
        Of its tables: 1 for ``genesis``, 50 for ``tpcb``, 10 (1 GB) for ``analytic``.
    clients : int, optional
        32 for ``tpcb``, 4 for ``analytic``, 8 for scripts of the user's, the level's for ``genesis``.
    query_timeout_seconds : float
        What a statement of a script may take.

    Raises
    ------
    UsageError
        If there is no such workload, or its scripts cannot be used.
    """
    timeouts = {"statement_timeout": f"{round(query_timeout_seconds * 1000)}ms", "lock_timeout": _LOCK_TIMEOUT}
    if wanted == GENESIS:
        chosen = LEVELS[level]
        return Workload(GENESIS, chosen.mix, clients or chosen.clients, LOAD_TABLES, scale or 1.0, is_open_loop=True)
    if wanted == TPCB:
        return _bundled(TPCB, TPCB_TABLES, scale or 50.0, clients or 32, timeouts)
    if wanted == ANALYTIC:
        return _bundled(ANALYTIC, ANALYTIC_TABLES, scale or 10.0, clients or 4, timeouts)
    folder = Path(wanted)
    if not _is_there(folder):
        raise UsageError(
            f"There is no workload {wanted!r}, and no folder of that name.",
            f"Choose {GENESIS}, {TPCB} or {ANALYTIC}, or name a folder with .sql files.",
        )
    found = read_workload(folder)
    mix = ScriptMix(found.scripts, timeouts, {"scale": _written(1.0 if scale is None else scale)})
    return Workload(folder.resolve().name, mix, clients or 8, setup=found.setup.statements if found.setup else ())


def _bundled(name: str, table_set: TableSet, scale: float, clients: int, timeouts: Mapping[str, str]) -> Workload:
    folder = files("ml_postgres_optimization.workload").joinpath("sql", name)
    scripts = tuple(
        parse_script(file.read_text("utf-8"), name=file.name.removesuffix(".sql"))
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
    )
    # the scripts name tables as the user's own would
    settings = {"search_path": f"{table_set.schema}, pg_catalog", **timeouts}
    return Workload(name, ScriptMix(scripts, settings, {"scale": _written(scale)}), clients, table_set, scale)


def _written(scale: float) -> float:
    """Return a scale as pgbench has it: a whole number, wherever it is one."""
    return int(scale) if float(scale).is_integer() else scale


def _is_there(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:  # a name that is too long for one, or a folder that may not be entered
        return False
