"""Do the worst to a trial at every step, and see what comes back.

Each run is a trial in a process of its own that stops at a step drawn by lot. There:

kill
    The tuner, the watchdog and the guard session are killed, alone or together (the guard session by
    pg_terminate_backend, since a kill -9 of a backend is a crash of the server), in some runs the server as well
    (kill -9 or immediate stop of its postmaster, and a start 0.5 s later). A tuner that lives goes on with its trial,
    which puts everything back at its end. Where all three were killed, the next start has to do it.
stop
    The tuner is stopped (SIGSTOP) until its lease is over, and goes on then: it may change nothing any more.
network
    The line between the tuner's machine and the server is cut, or falls silent, for up to twice the lease.
human
    Somebody changes one of the settings on trial by hand. Then the tuner goes on, or is killed. That value survives.

The configuration from before has to be in force within the lease and a second more, counted from the fault, or from
when the server is up or the next start has begun.

    python benchmarks/faults.py --kill 1000 --stop 100 --network 100 --human 200

Runs that were made already are kept, so that the whole, over an hour long, goes on where it was interrupted.
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

from cutting_proxy import CuttingProxy  # noqa: E402  (its folder is no package)
from protected_trial import MOMENTS, STOCK, by_hand, comes_back, protected_trial, seen, written  # noqa: E402

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
BY_HAND = {"work_mem": "32MB", "jit": "on", "random_page_cost": "2.5"}
SERVER_ENDS = {"kill -9": signal.SIGKILL, "immediate stop": signal.SIGQUIT}
_GIVE_UP_SECONDS = 30.0
_DOWN_SECONDS = 0.5


def run(server: EmbeddedServer, kind: str, number: int) -> dict[str, object]:
    """Make one run, and return what came of it."""
    rng = random.Random(f"{kind} {number}")
    moment = rng.choice(MOMENTS)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "journal"
        fault, seconds = KINDS[kind](server, directory, moment, rng)
        unfinished = [trial.intent.trial_id for trial in settled(directory)]
    by_hand(server.dsn, "ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")
    return {
        "kind": kind,
        "run": number,
        "step": moment,
        "fault": fault,
        "seconds": seconds,
        "unfinished": unfinished,
    }


def kill(server: EmbeddedServer, directory: Path, moment: str, rng: random.Random) -> tuple[str, float | None]:
    """Kill somebody; return who it was, and how long it took until all was as before."""
    victims = rng.choice(VICTIMS)
    server_end = rng.choice(sorted(SERVER_ENDS)) if rng.random() < 0.2 else None
    with protected_trial(server.dsn, directory, moment, LEASE_SECONDS) as trial:
        trial.kill(*victims)
        if server_end:
            end(server, SERVER_ENDS[server_end])
        if "tuner" not in victims:
            trial.go_on()
        if len(victims) == 3:
            start_again(server, directory)
        seconds = seconds_until_back(server)
    return "+".join((*victims, *(("server",) if server_end else ()))), seconds


def stop(server: EmbeddedServer, directory: Path, moment: str, _rng: random.Random) -> tuple[str, float | None]:
    """Stop the tuner until others have put everything back; afterwards it may change nothing."""
    with protected_trial(server.dsn, directory, moment, LEASE_SECONDS) as trial:
        trial.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        seconds = seconds_until_back(server)
        time.sleep(max(0.0, LEASE_SECONDS + 1 - (time.monotonic() - began)))
        trial.process.send_signal(signal.SIGCONT)
        trial.go_on()
        is_as_before = seen(server.dsn, *STOCK) == STOCK and not written(server)
    return "stopped", seconds if is_as_before else None


def network(server: EmbeddedServer, directory: Path, moment: str, rng: random.Random) -> tuple[str, float | None]:
    """Cut the line for a while, or let it fall silent."""
    fault, healed_after = rng.choice(("cut", "silent")), rng.uniform(0.2, 2.0) * LEASE_SECONDS
    with (
        CuttingProxy(server.dsn) as line,
        protected_trial(f"{server.dsn} host=127.0.0.1 port={line.port}", directory, moment, LEASE_SECONDS) as trial,
    ):
        (line.cut if fault == "cut" else line.fall_silent)()
        began = time.monotonic()
        trial.process.stdin.write("\n")
        trial.process.stdin.flush()
        seconds = seconds_until_back(server, LEASE_SECONDS + 5)
        time.sleep(max(0.0, healed_after - (time.monotonic() - began)))
        line.heal()
        trial.process.wait(60)
        is_as_before = seen(server.dsn, *STOCK) == STOCK and not written(server)
    return fault, seconds if is_as_before else None


def human(server: EmbeddedServer, directory: Path, moment: str, rng: random.Random) -> tuple[str, float | None]:
    """Change a setting by hand; then the tuner goes on, or is killed."""
    name, value = rng.choice(sorted(BY_HAND.items()))
    is_killed = rng.random() < 0.5
    with protected_trial(server.dsn, directory, moment, LEASE_SECONDS) as trial:
        by_hand(server.dsn, f"ALTER SYSTEM SET {name} = '{value}'", "SELECT pg_reload_conf()")
        if is_killed:
            trial.kill("tuner")
        else:
            trial.go_on()
        seconds = seconds_until_back(server, wanted={**STOCK, name: value})
        if written(server) != [f"{name} = '{value}'"]:
            seconds = None
    return f"{name}, then {'killed' if is_killed else 'went on'}", seconds


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


def seconds_until_back(
    server: EmbeddedServer, within_seconds: float = _GIVE_UP_SECONDS, wanted: dict[str, str] | None = None
) -> float | None:
    """Return how long it took; None where it never came back."""
    try:
        return comes_back(server, within_seconds, wanted)
    except AssertionError:
        return None


def settled(directory: Path, seconds: float = 5.0) -> tuple:
    """Return what the journal calls unfinished, after a moment for whoever is about to write it."""
    deadline = time.monotonic() + seconds
    while read_journal(directory).unfinished and time.monotonic() < deadline:
        time.sleep(0.05)
    return read_journal(directory).unfinished


def show(runs: list[dict]) -> None:
    """Print for each kind step by fault, how often, and the worst time."""
    limit = LEASE_SECONDS + 1
    for kind in KINDS:
        of_kind = [each for each in runs if each["kind"] == kind]
        if of_kind:
            _show(kind, of_kind)
            late = [each["run"] for each in of_kind if each["seconds"] is None or each["seconds"] > limit]
            left = [each["run"] for each in of_kind if each["unfinished"]]
            print(
                f"{len(of_kind)} runs; not back within {limit:g} s: {late or 'none'}; unfinished: {left or 'none'}\n"
            )


def _show(kind: str, runs: list[dict]) -> None:
    table: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for each in runs:
        table[each["fault"]][each["step"]].append(each["seconds"])
    print(f"{kind}: worst seconds (count)")
    steps = [moment for moment in MOMENTS if any(moment in row for row in table.values())]
    width = max(len(fault) for fault in table)
    print(" " * width + "".join(f"{step:>12}" for step in steps))
    for fault, row in sorted(table.items()):
        print(f"{fault:<{width}}" + "".join(f"{_cell(row.get(step, [])):>12}" for step in steps))


def _cell(seconds: list) -> str:
    if not seconds:
        return "-"
    worst = "never" if None in seconds else f"{max(seconds):.2f}"
    return f"{worst} ({len(seconds)})"


KINDS = {"kill": kill, "stop": stop, "network": network, "human": human}


def main() -> None:
    """Make the runs that are still to be made, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, runs_wanted in (("kill", 1000), ("stop", 100), ("network", 100), ("human", 200)):
        parser.add_argument(f"--{kind}", type=int, default=runs_wanted, metavar="RUNS")
    arguments = parser.parse_args()
    RESULT.parent.mkdir(exist_ok=True)
    runs = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else []
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedServer.start(Path(folder) / "server", binaries=find_binaries(None)) as server:
            by_hand(server.dsn, "CREATE EXTENSION dblink")
            for kind in KINDS:
                made = sum(each["kind"] == kind for each in runs)
                for number in range(made, getattr(arguments, kind)):
                    runs.append(run(server, kind, number))
                    RESULT.write_text(json.dumps(runs, separators=(",", ":")) + "\n", encoding="utf-8")
    show(runs)


if __name__ == "__main__":
    main()
