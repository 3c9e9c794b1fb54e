"""Do the worst to a trial at every step, and see what comes back.

Each run is a trial in a process of its own that stops at a step drawn by lot: of one that is put back, of one that is
confirmed (confirm/...), or of one that is opened while another is in force (nested/...). There:

kill
    The tuner, the watchdog and the guard session are killed, alone or together (the guard session by
    pg_terminate_backend, since a kill -9 of a backend is a crash of the server).
crash
    The server is killed (kill -9 or immediate stop of its postmaster, and a start 0.5 s later) between ALTER SYSTEM
    and the reload, alone or together with any of those.
stop
    The tuner is stopped (SIGSTOP) until its lease is over, and goes on then: it may change nothing any more.
network
    The line between the tuner's machine and the server is cut, or falls silent, for up to twice the lease.
human
    Somebody changes one of the settings on trial by hand. Then the tuner goes on, or is killed. That value survives.
contradicted
    The same, at any time while the tuner is stopped.
restart
    A trial that needs restarts, which it makes itself; it, the watchdog and the guard session are killed before,
    after or in the middle of one. Where only the guard session is left, somebody has to restart the server later.

role
    As kill, of a trial that gives the new sessions of a role time limits; made only where it is asked for.

A tuner that lives goes on with its trial. Where nobody is left who could put anything back, the next start has to.
What is confirmed in the journal has to be in force, and else the configuration from before, within the lease and a
second more, counted from the fault, or from when the server is up or the next start has begun.

    python benchmarks/faults.py --kill 1000 --stop 100 --network 100 --human 200

Runs that were made already are kept, so that the whole, some hours long, goes on where it was interrupted. Most of a
run is waiting: `--servers 3` makes three at a time, each on a server of its own, which makes it harder, not easier.
"""

import argparse
import json
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue

import psycopg

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "postgres"))

from guarded_trial import restarts_by  # noqa: E402
from protected_trial import (  # noqa: E402
    CONFIRM_MOMENTS,
    MOMENTS,
    NESTED_MOMENTS,
    RESTART_MOMENTS,
    ROLE_MOMENTS,
    ROLE_SETTINGS,
    STOCK,
    TRIED,
    ProtectedTrial,
    by_hand,
    comes_true,
    make_role,
    protected_trial,
    role_settings,
    seen,
    written,
)
from running import run_benchmark  # noqa: E402

from ml_postgres_optimization.safety.journal import Journal, read_journal  # noqa: E402
from ml_postgres_optimization.safety.undo import undo_unfinished  # noqa: E402
from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries  # noqa: E402
from ml_postgres_optimization.target.embedded.account import server_account  # noqa: E402
from ml_postgres_optimization.target.embedded.postmaster import clean_up_after_crash  # noqa: E402
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings  # noqa: E402
from ml_postgres_optimization.target.postgres.server import PostgresTarget  # noqa: E402
from ml_postgres_optimization.workload.faults import FaultProxy  # noqa: E402

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
ALL_MOMENTS = (*MOMENTS, *CONFIRM_MOMENTS, *NESTED_MOMENTS)
# The guard session is sent home, and the journal does not say yet that it is confirmed: where the line is cut just
# then, nobody can put anything back before it heals, so the time counts from there.
CONFIRMING = ("confirm/record 5", "confirm/sole 3")
BEFORE_A_RELOAD = tuple(
    moment for moment in ALL_MOMENTS if moment.rpartition("/")[2].split()[0] in {"write", "reload", "restore"}
)
BY_HAND = {"work_mem": "32MB", "jit": "on", "random_page_cost": "2.5"}
SERVER_ENDS = {"kill -9": signal.SIGKILL, "immediate stop": signal.SIGQUIT}
BUFFERS = {"shared_buffers": "128MB"}
_GIVE_UP_SECONDS = 30.0
_DOWN_SECONDS = 0.5
_RESTART_SECONDS = 0.8


def run(server: EmbeddedServer, kind: str, number: int) -> dict[str, object]:
    """Make one run, and return what came of it."""
    rng = random.Random(f"{kind} {number}")
    make, moments = KINDS[kind]
    moment = rng.choice(moments)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "journal"
        fault, seconds = make(server, directory, moment, rng)
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
    """Kill somebody; return who it was, and how long it took until all was as it is to be."""
    return _killed(server, directory, moment, rng.choice(VICTIMS), None)


def crash(server: EmbeddedServer, directory: Path, moment: str, rng: random.Random) -> tuple[str, float | None]:
    """Kill the server, and perhaps somebody else."""
    return _killed(server, directory, moment, rng.choice(((), *VICTIMS)), rng.choice(sorted(SERVER_ENDS)))


def _killed(
    server: EmbeddedServer, directory: Path, moment: str, victims: tuple[str, ...], server_end: str | None
) -> tuple[str, float | None]:
    with protected_trial(server.dsn, directory, moment, LEASE_SECONDS) as trial:
        trial.kill(*victims)
        if server_end:
            end(server, SERVER_ENDS[server_end])
        if "tuner" not in victims:
            trial.go_on()
        if nobody_is_left(trial, victims, bool(server_end)):
            start_again(server, directory)
        seconds = seconds_until_back(server, directory)
    if {"tuner", "watchdog"} <= {*victims}:
        # the guard session does not write the journal
        start_again(server, directory)
    return "+".join((*victims, *((server_end,) if server_end else ()))), seconds


def stop(server: EmbeddedServer, directory: Path, moment: str, _rng: random.Random) -> tuple[str, float | None]:
    """Stop the tuner until others have put everything back; afterwards it may change nothing."""
    with protected_trial(server.dsn, directory, moment, LEASE_SECONDS) as trial:
        trial.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        seconds = seconds_until_back(server, directory)
        time.sleep(max(0.0, LEASE_SECONDS + 1 - (time.monotonic() - began)))
        trial.process.send_signal(signal.SIGCONT)
        trial.go_on()
        is_so_still = is_back(server, directory)
    return "stopped", seconds if is_so_still else None


def network(server: EmbeddedServer, directory: Path, moment: str, rng: random.Random) -> tuple[str, float | None]:
    """Cut the line for a while, or let it fall silent."""
    fault, healed_after = rng.choice(("cut", "silent")), rng.uniform(0.2, 2.0) * LEASE_SECONDS
    with (
        FaultProxy(server.dsn) as line,
        protected_trial(f"{server.dsn} host=127.0.0.1 port={line.port}", directory, moment, LEASE_SECONDS) as trial,
    ):
        (line.cut if fault == "cut" else line.fall_silent)()
        began = time.monotonic()
        trial.process.stdin.write("\n")
        trial.process.stdin.flush()
        seconds = seconds_until_back(server, directory, within_seconds=LEASE_SECONDS + 5)
        time.sleep(max(0.0, healed_after - (time.monotonic() - began)))
        line.heal()
        if seconds is None and moment in CONFIRMING:
            seconds = seconds_until_back(server, directory)
        trial.process.wait(60)
        is_so_still = not settled(directory) and is_back(server, directory)
    return fault, seconds if is_so_still else None


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
        seconds = seconds_until_back(server, directory, {name: value})
    return f"{name}, then {'killed' if is_killed else 'went on'}", seconds


def contradicted(
    server: EmbeddedServer, directory: Path, moment: str, rng: random.Random
) -> tuple[str, float | None]:
    """Change a setting by hand at any time while the tuner is stopped."""
    name, value = rng.choice(sorted(BY_HAND.items()))
    with protected_trial(server.dsn, directory, moment, LEASE_SECONDS) as trial:
        trial.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        time.sleep(rng.uniform(0.0, LEASE_SECONDS + 1))
        by_hand(server.dsn, f"ALTER SYSTEM SET {name} = '{value}'", "SELECT pg_reload_conf()")
        if seconds_until_back(server, directory, {name: value}) is None:
            return name, None
        seconds = time.monotonic() - began
        time.sleep(max(0.0, LEASE_SECONDS + 1 - seconds))
        trial.process.send_signal(signal.SIGCONT)
        trial.go_on()
        is_so_still = is_back(server, directory, {name: value})
    return name, seconds if is_so_still else None


def restart(server: EmbeddedServer, directory: Path, moment: str, rng: random.Random) -> tuple[str, float | None]:
    """Kill somebody around a restart that the trial makes, or in it."""
    victims, command = rng.choice(VICTIMS), restart_command(server)
    delay = rng.uniform(0, _RESTART_SECONDS) if "restart " in moment and rng.random() < 0.5 else None
    with protected_trial(server.dsn, directory, moment, LEASE_SECONDS, command) as trial:
        if delay is not None:
            trial.process.stdin.write("\n")
            trial.process.stdin.flush()
            time.sleep(delay)
        trial.kill(*({*victims} - {"guard"} if delay is not None else victims))
        if "tuner" not in victims:
            (trial.process.wait if delay is not None else trial.go_on)()
        if nobody_is_left(trial, victims, is_server_ended=False):
            start_again(server, directory, command)
        by_itself = {} if {"tuner", "watchdog"} <= {*victims} else BUFFERS
        seconds = seconds_until_back(server, directory, by_itself)
    if {"tuner", "watchdog"} <= {*victims}:
        start_again(server, directory)
    # ours again: the command has started it anew
    server.restart()
    is_so_still = is_back(server, directory, BUFFERS)
    return "+".join(victims) + (" in the middle" if delay is not None else ""), seconds if is_so_still else None


def nobody_is_left(trial: ProtectedTrial, victims: tuple[str, ...], is_server_ended: bool) -> bool:
    """Tell whether whoever could put something back is dead; the guard session dies with the server."""
    return {"tuner", "watchdog"} <= {*victims} and ("guard" in victims or is_server_ended or not trial.guard)


def restart_command(server: EmbeddedServer) -> str:
    """Restart the server as its owner would who has pg_ctl."""
    account = server_account()
    switched = ["runuser", "-u", account.name, "--"] if account.switched else []
    pg_ctl = [str(server.binaries.program("pg_ctl")), "-D", str(server.data_directory)]
    return shlex.join([*switched, *pg_ctl, "-w", "-m", "fast", "restart"])


def end(server: EmbeddedServer, how: signal.Signals) -> None:
    """End the server, and start it again a moment later."""
    pid = int((server.data_directory / "postmaster.pid").read_text(encoding="utf-8").split()[0])
    os.kill(pid, how)
    time.sleep(_DOWN_SECONDS)
    server.restart()


def start_again(server: EmbeddedServer, directory: Path, command: str | None = None) -> None:
    """Do what any start of ours does first, once the server is there."""
    comes_true(lambda: bool(answers(server)), _GIVE_UP_SECONDS, lambda: "the server does not come back")
    with ExitStack() as resources:
        restarter = restarts_by(command, resources) if command else None
        settings = ConnectionSettings.from_dsn(server.dsn)
        target = resources.enter_context(PostgresTarget.open(settings, restarter=restarter))
        undo_unfinished(target, resources.enter_context(Journal(directory)))


def answers(server: EmbeddedServer, *names: str) -> dict[str, str]:
    """Return what a fresh session has; nothing where there can be none."""
    try:
        return seen(server.dsn, "port", *names)
    except psycopg.OperationalError:
        return {}


def is_back(server: EmbeddedServer, directory: Path, besides: dict[str, str] | None = None) -> bool:
    """Tell whether what is in force is what is proven, and what somebody else has set."""
    besides = besides or {}
    is_confirmed = bool(read_journal(directory).confirmed)
    wanted = {**(TRIED if is_confirmed else STOCK), **besides}
    if not wanted.items() <= answers(server, *wanted).items():
        return False
    if role_settings(server.dsn) != ROLE_SETTINGS:
        return False
    of_others = [f"{name} = '{value}'" for name, value in besides.items() if name in BY_HAND]
    return {*of_others} <= {*written(server)} if is_confirmed else written(server) == of_others


def seconds_until_back(
    server: EmbeddedServer,
    directory: Path,
    besides: dict[str, str] | None = None,
    *,
    within_seconds: float = _GIVE_UP_SECONDS,
) -> float | None:
    """Return how long it took; None where it never came back."""
    try:
        return comes_true(lambda: is_back(server, directory, besides), within_seconds, lambda: "never")
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
    for kind, (_, moments) in KINDS.items():
        of_kind = [each for each in runs if each["kind"] == kind]
        if of_kind:
            print(f"{kind}: worst seconds (count)")
            for scenario in dict.fromkeys(moment.rpartition("/")[0] for moment in moments):
                _show(scenario, moments, of_kind)
            late = [each["run"] for each in of_kind if each["seconds"] is None or each["seconds"] > limit]
            left = [each["run"] for each in of_kind if each["unfinished"]]
            print(
                f"{len(of_kind)} runs; not back within {limit:g} s: {late or 'none'}; unfinished: {left or 'none'}\n"
            )


def _show(scenario: str, moments: tuple[str, ...], runs: list[dict]) -> None:
    table: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    steps = [moment for moment in moments if moment.rpartition("/")[0] == scenario]
    for each in runs:
        if each["step"] in steps:
            table[each["fault"]][each["step"]].append(each["seconds"])
    width = max(map(len, (scenario, *table)))
    print(f"{scenario:<{width}}" + "".join(f"{step.rpartition('/')[2]:>13}" for step in steps))
    for fault, row in sorted(table.items()):
        print(f"{fault:<{width}}" + "".join(f"{_cell(row.get(step, [])):>13}" for step in steps))


def _cell(seconds: list) -> str:
    if not seconds:
        return "-"
    worst = "never" if None in seconds else f"{max(seconds):.2f}"
    return f"{worst} ({len(seconds)})"


KINDS = {
    "kill": (kill, ALL_MOMENTS),
    "crash": (crash, BEFORE_A_RELOAD),
    "stop": (stop, ALL_MOMENTS),
    "network": (network, ALL_MOMENTS),
    "human": (human, ALL_MOMENTS),
    "contradicted": (contradicted, ALL_MOMENTS),
    "restart": (restart, RESTART_MOMENTS),
    "role": (kill, ROLE_MOMENTS),
}
RUNS = {
    "kill": 1000,
    "crash": 200,
    "stop": 100,
    "network": 100,
    "human": 200,
    "contradicted": 100,
    "restart": 200,
    "role": 0,
}


def main() -> None:
    """Make the runs that are still to be made, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, runs_wanted in RUNS.items():
        parser.add_argument(f"--{kind}", type=int, default=runs_wanted, metavar="RUNS")
    parser.add_argument("--servers", type=int, default=1, help="so many runs at the same time (1)")
    parser.add_argument("--result", type=Path, default=RESULT)
    arguments = parser.parse_args()
    result = arguments.result
    result.parent.mkdir(exist_ok=True)
    runs = json.loads(result.read_text(encoding="utf-8")) if result.exists() else []
    made = {(each["kind"], each["run"]) for each in runs}
    if not find_binaries(None).program("pg_ctl").exists():
        print("restart: left out, since these programs come without pg_ctl\n")
        arguments.restart = 0
    to_make = [(kind, number) for kind in KINDS for number in range(getattr(arguments, kind))]
    for each in made_by_servers(arguments.servers, [wanted for wanted in to_make if wanted not in made]):
        runs.append(each)
        result.write_text(json.dumps(runs, separators=(",", ":")) + "\n", encoding="utf-8")
    show(runs)


def made_by_servers(count: int, to_make: list[tuple[str, int]]) -> Iterator[dict[str, object]]:
    """Make the runs, as many at a time as there are servers, and yield each when it is done."""
    with ExitStack() as resources:
        idle: SimpleQueue[EmbeddedServer] = SimpleQueue()
        for _ in range(count):
            idle.put(resources.enter_context(own_server()))
        pool = resources.enter_context(ThreadPoolExecutor(count))
        resources.callback(pool.shutdown, cancel_futures=True)
        for done in as_completed([pool.submit(run_on_one_of, idle, *wanted) for wanted in to_make]):
            yield done.result()


def run_on_one_of(idle: SimpleQueue[EmbeddedServer], kind: str, number: int) -> dict[str, object]:
    """Make one run on a server that has nothing else to do."""
    server = idle.get()
    try:
        return run(server, kind, number)
    finally:
        idle.put(server)


@contextmanager
def own_server() -> Iterator[EmbeddedServer]:
    """Start a server that runs may do anything to."""
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedServer.start(Path(folder) / "server", binaries=find_binaries(None)) as server:
            by_hand(server.dsn, "CREATE EXTENSION dblink")
            make_role(server.dsn)
            try:
                yield server
            finally:
                clean_up_after_crash(server.data_directory, server_account())


if __name__ == "__main__":
    run_benchmark(main)
