"""Kill the tuner, those who stand by for it, and the server, at every step of a trial, and see what comes back.

Each run is a trial in a process of its own that stops at a step drawn by lot. There the tuner, the watchdog and the
guard session are killed, alone or together (the guard session by pg_terminate_backend, since a kill -9 of a backend
is a crash of the server), in some runs the server as well (kill -9 or immediate stop of its postmaster, and a start
0.5 s later). Then the configuration from before has to be in force within the lease and a second more, counted from
the kill or from when the server is up again. A tuner that lives goes on with its trial, which puts it back at its
end. Where all three were killed, the next start has to do it, and the time counts from there.

    python benchmarks/faults.py --runs 1000

Runs that were made already are kept, so that the whole, about an hour long, goes on where it was interrupted.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "postgres"))

from protected_trial import (  # noqa: E402  (its folder is no package)
    MOMENTS,
    by_hand,
    comes_back,
    protected_trial,
)

from ml_postgres_optimization.safety.journal import Journal, read_journal  # noqa: E402
from ml_postgres_optimization.safety.undo import undo_unfinished  # noqa: E402
from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries  # noqa: E402
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings  # noqa: E402
from ml_postgres_optimization.target.postgres.server import PostgresTarget  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "faults.json"
LEASE_SECONDS = 3.0
VICTIMS = (
    ("tuner",),
    ("watchdog",),
    ("guard",),
    ("tuner", "watchdog"),
    ("tuner", "guard"),
    ("watchdog", "guard"),
    ("tuner", "watchdog", "guard"),
)
SERVER_ENDS = {"kill -9": signal.SIGKILL, "immediate stop": signal.SIGQUIT}
_GIVE_UP_SECONDS = 30.0
_DOWN_SECONDS = 0.5


def run(server: EmbeddedServer, number: int) -> dict[str, object]:
    """Make one run, and return what came of it."""
    rng = random.Random(number)
    moment, victims = rng.choice(MOMENTS), rng.choice(VICTIMS)
    server_end = rng.choice(sorted(SERVER_ENDS)) if rng.random() < 0.2 else None
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "journal"
        with protected_trial(server.dsn, directory, moment, LEASE_SECONDS) as trial:
            trial.kill(*victims)
            if server_end:
                end(server, SERVER_ENDS[server_end])
            if "tuner" not in victims:
                trial.go_on()
            if len(victims) == 3:
                start_again(server, directory)
            seconds = seconds_until_back(server)
        unfinished = [trial.intent.trial_id for trial in settled(directory)]
    by_hand(server.dsn, "ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")
    return {
        "run": number,
        "step": moment,
        "victims": list(victims),
        "server": server_end,
        "seconds": seconds,
        "unfinished": unfinished,
    }


def end(server: EmbeddedServer, how: signal.Signals) -> None:
    """End the server, and start it again a moment later."""
    pid = int((server.data_directory / "postmaster.pid").read_text(encoding="utf-8").split()[0])
    os.kill(pid, how)
    time.sleep(_DOWN_SECONDS)
    server.restart()


def start_again(server: EmbeddedServer, directory: Path) -> None:
    """Do what any start of ours does first."""
    with PostgresTarget.open(ConnectionSettings.from_dsn(server.dsn)) as target, Journal(directory) as journal:
        undo_unfinished(target, journal)


def seconds_until_back(server: EmbeddedServer) -> float | None:
    """Return how long it took; None where it never came back."""
    try:
        return comes_back(server, _GIVE_UP_SECONDS)
    except AssertionError:
        return None


def settled(directory: Path, seconds: float = 5.0) -> tuple:
    """Return what the journal calls unfinished, after a moment for whoever is about to write it."""
    deadline = time.monotonic() + seconds
    while read_journal(directory).unfinished and time.monotonic() < deadline:
        time.sleep(0.05)
    return read_journal(directory).unfinished


def show(runs: list[dict]) -> None:
    """Print step by victims, how often, and the worst time."""
    limit = LEASE_SECONDS + 1
    table: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for each in runs:
        victims = "+".join(name[0] for name in each["victims"]) + ("+s" if each["server"] else "")
        table[each["step"]][victims].append(each["seconds"])
    columns = sorted({victims for row in table.values() for victims in row})
    print("worst seconds (count); victims: t tuner, w watchdog, g guard session, s server")
    print(f"{'step':<10}" + "".join(f"{column:>14}" for column in columns))
    for step in (moment for moment in MOMENTS if moment in table):
        cells = (table[step].get(column, []) for column in columns)
        print(f"{step:<10}" + "".join(f"{_cell(cell):>14}" for cell in cells))
    late = [each["run"] for each in runs if each["seconds"] is None or each["seconds"] > limit]
    unfinished = [each["run"] for each in runs if each["unfinished"]]
    print(
        f"{len(runs)} runs; not back within {limit:g} s: {late or 'none'}; journal unfinished: {unfinished or 'none'}"
    )


def _cell(seconds: list) -> str:
    if not seconds:
        return "-"
    worst = "never" if None in seconds else f"{max(seconds):.2f}"
    return f"{worst} ({len(seconds)})"


def main() -> None:
    """Make the runs that are still to be made, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    arguments = parser.parse_args()
    RESULT.parent.mkdir(exist_ok=True)
    runs = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else []
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedServer.start(Path(folder) / "server", binaries=find_binaries(None)) as server:
            by_hand(server.dsn, "CREATE EXTENSION dblink")
            for number in range(len(runs), arguments.runs):
                runs.append(run(server, number))
                RESULT.write_text(json.dumps(runs, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")
    show(runs)


if __name__ == "__main__":
    main()
