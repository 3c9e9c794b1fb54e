"""Split a load over client processes."""

from __future__ import annotations

import os
from pathlib import Path

from ml_postgres_optimization.target.host.cgroup import ControlGroup
from ml_postgres_optimization.workload.plan import LoadPlan
from ml_postgres_optimization.workload.process.messages import Share, parts_of


def shares_of(plan: LoadPlan, processes: int, *, turn: int = 0) -> list[Share]:
    """Split `plan` over so many processes.

    Connections are whole, so they go as evenly as they can, as does the ceiling; rate and clients follow the
    connections, since a process without any could serve nobody. Processes that the rate does not need, or that no
    connection is left for, rest; so do those that would have too few to divide them over all arms, and all of them in
    a pause.
    """
    if plan.is_paused:
        resting = Share(0, 0, None if plan.rate_per_second is None else 0.0, plan.mix, plan.arms, turn, plan.ceiling)
        return [resting] * processes
    active = min(plan.active_count(processes), plan.connections // max(1, len(plan.arms)))
    whole, rest = divmod(plan.connections, active)
    connections = [whole + (worker < rest) if worker < active else 0 for worker in range(processes)]
    ceilings = parts_of(plan.ceiling, active)
    clients = [round(plan.clients * sum(connections[:worker]) / plan.connections) for worker in range(processes + 1)]
    rate = plan.rate_per_second
    return [
        Share(
            connections=mine,
            clients=clients[worker + 1] - clients[worker],
            rate_per_second=None if rate is None else rate * mine / plan.connections,
            mix=plan.mix,
            arms=plan.arms,
            turn=turn,
            ceiling=ceilings[worker] if worker < active else plan.ceiling,
        )
        for worker, mine in enumerate(connections)
    ]


def usable_cores(*, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> int:
    """Return how many cores our processes can fill: those that we may run on, and no more than our quota pays for.

    A pod of two processors may run on all 64 cores of its host, and is put to rest when it has used two cores' time;
    64 client processes there would all be slow together.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = ControlGroup(proc, sys).cpus()
    return allowed if quota is None else max(1, min(allowed, int(quota)))
