"""How long somebody who attaches to a run of three days waits for its first screen, and what memory that takes.

The journal is written as a run writes it, of made-up intervals of 10 seconds; nothing waits for the disk. Then two
processes read it and show the run: one from its snapshots, as ``test --attach`` does, one from its beginning.

    python benchmarks/soak_attach.py --hours 72
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "soak")]

from simulated_run import SimulatedRun  # noqa: E402

from ml_postgres_optimization.interfaces.cli.console import ConsoleReporter  # noqa: E402
from ml_postgres_optimization.interfaces.commands.soaking.reports import outline_of  # noqa: E402
from ml_postgres_optimization.soak.journal import (  # noqa: E402
    FILE,
    Begun,
    ClockMark,
    FollowedRun,
    Measured,
    RunDescription,
    RunJournal,
    Totals,
)

RESULT = Path(__file__).resolve().parent / "results" / "soak_attach.json"
GOAL_SECONDS = 2.0
GOAL_BYTES = 300e6


def write(folder: Path, hours: float, per_second: float) -> int:
    """Write a run's journal, and return how many intervals it has."""
    simulated = SimulatedRun(hours=hours, interval_seconds=10.0, per_second=per_second)
    plan, totals = simulated.description, Totals()
    description = RunDescription(
        *(folder.name, "1", "db", "here", "17", plan.started_at, plan.planned_seconds, plan.interval_seconds, 1)
    )
    os.fdatasync = os.fsync = lambda _file: None
    with RunJournal(folder, description) as journal:
        journal.append(Begun(1, simulated.at(0), 0))
        for interval in simulated.intervals():
            totals = totals.after(interval.window, 0)
            journal.append(Measured(interval, totals, ClockMark()))
    return journal.state.last_number + 1


def shown(folder: Path, *, is_recent: bool) -> dict[str, float]:
    """Show the run once, in this process."""
    began = time.monotonic()
    followed, stream = FollowedRun(folder, is_recent=is_recent), io.StringIO()
    with ConsoleReporter(stream).watching(outline_of(followed.description), followed.news(), followed.so_far):
        seconds = time.monotonic() - began
    assert "succeeded so far" in stream.getvalue(), "nothing was shown"
    return {"seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0}


def main() -> int:
    """Measure, write the file, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=72.0)
    parser.add_argument("--per-second", type=float, default=100.0)
    parser.add_argument("--show", nargs=2, metavar=("FOLDER", "RECENT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.show:
        print(json.dumps(shown(Path(arguments.show[0]), is_recent=arguments.show[1] == "recent")))
        return 0
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        result: dict[str, object] = {"intervals_total": write(folder, arguments.hours, arguments.per_second)}
        result["journal_bytes"] = (folder / FILE).stat().st_size
        for way in ("recent", "whole"):
            words = [sys.executable, __file__, "--show", str(folder), way]
            result[way] = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    recent = result["recent"]
    result["goals_met"] = recent["seconds"] <= GOAL_SECONDS and recent["peak_bytes"] <= GOAL_BYTES
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
