"""One extended test whose runner is killed again and again, then its PostgreSQL: what is lost, is the rest right?

The runner is a process of its own (``test``, then ``test --resume``), with intervals of a second; it is killed with
SIGKILL at an instant drawn from the seconds since it began, its start included. Then PostgreSQL is killed likewise
under one runner, and started again. At last that runner is stopped, another one takes over, and is stopped, too: so
the ledger's upper bound is checked twice. What the journal says is read here anew, and compared with the ledger.

    python benchmarks/soak_kills.py --kills 100 --crashes 20
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from running import run_benchmark

from ml_postgres_optimization.soak.interval import EventKind, IntervalState
from ml_postgres_optimization.soak.journal import FILE, Begun, Left, Measured, read_run, recover
from ml_postgres_optimization.soak.journal.journal_file import entries
from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.telemetry import merge
from ml_postgres_optimization.workload import SOAK_MIX

RESULT = Path(__file__).resolve().parent / "results" / "soak_kills.json"
ROOT = Path(__file__).resolve().parents[1]
INTERVAL_SECONDS = 1.0
PATIENCE_SECONDS = 90.0
LONGEST_LIFE_SECONDS = 4.0
GENESIS_PG = "from ml_postgres_optimization.interfaces.cli import main; main()"
LEDGER = "SELECT epoch, sum(committed)::bigint FROM genesis_load.ledger WHERE run = %s GROUP BY epoch"


class Bench:
    """The run, and whoever is at it."""

    def __init__(self, server: EmbeddedServer, home: Path, rng: random.Random) -> None:
        self.server, self.home, self.rng = server, home, rng
        self.kills: list[dict[str, float | bool]] = []
        self.codes: Counter[int] = Counter()
        self.runner: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path | None:
        """Where the run is recorded, as soon as it is."""
        found = next(iter(self.home.glob(f"servers/*/soaks/*/{FILE}")), None)
        return found and found.parent

    def command(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command of ours on the server."""
        names = ("PG", "POSTGRES_", "GENESIS_")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(names)}
        environ |= {"GENESIS_HOME": str(self.home), "GENESIS_WINDOW_SECONDS": str(INTERVAL_SECONDS)}
        return subprocess.Popen(
            [sys.executable, "-c", GENESIS_PG, *words, "--dsn", self.server.dsn],
            env={**environ, "PYTHONPATH": str(ROOT)},
            stdout=(self.home / "stdout").open("ab"),
            stderr=(self.home / "stderr").open("ab"),
            start_new_session=True,
        )

    def begin(self) -> None:
        """Begin the run, or go on with it."""
        how = ("--duration", "24", "--level", "BASIC") if self.folder is None else ("--resume",)
        self.runner = self.command("test", *how, "--simulate", "--scale", "0.005")

    def wait(self, counted: type, more_than: int) -> None:
        """Wait until the journal has more records of a kind."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.count(counted) <= more_than:
            code = self.runner.poll()
            if code is not None or time.monotonic() > deadline:
                error = (self.home / "stderr").read_text()[-800:]
                raise RuntimeError(f"the runner ended with {code}, or recorded nothing: {error}")
            time.sleep(0.1)

    def count(self, counted: type) -> int:
        """Return how many records of a kind there are."""
        folder = self.folder
        return sum(isinstance(entry, counted) for _, entry in entries(folder, folder.name)) if folder else 0

    def kill(self, longest_seconds: float) -> None:
        """Begin, and kill the runner at an instant that is drawn."""
        begun = self.count(Begun)
        self.begin()
        if not begun:  # the run must be there, to be gone on with
            self.wait(Measured, 0)
        time.sleep(self.rng.uniform(0.0, longest_seconds))
        if self.runner.poll() is not None:
            raise RuntimeError(f"the runner ended by itself: {(self.home / 'stderr').read_text()[-800:]}")
        at = datetime.now(UTC)
        self.runner.kill()
        self.codes[self.runner.wait()] += 1
        self.kills.append({"had_begun": self.count(Begun) > begun, "unrecorded_seconds": self.unrecorded(at, begun)})

    def unrecorded(self, at: datetime, begun: int) -> float:
        """Return how long the runner has been at it since its last record."""
        seen = [entry for _, entry in entries(self.folder, self.folder.name)]
        if sum(isinstance(entry, Begun) for entry in seen) == begun:
            return 0.0
        last = seen[-1]
        return (at - (last.interval.ended_at if isinstance(last, Measured) else last.at)).total_seconds()

    def crash(self) -> None:
        """Kill PostgreSQL at an instant that is drawn, start it again, and wait until it is measured again."""
        time.sleep(self.rng.uniform(0.0, LONGEST_LIFE_SECONDS))
        self.server.kill()
        time.sleep(self.rng.uniform(0.0, 2.0))
        self.server.restart()
        self.wait(Measured, self.count(Measured) + 2)

    def stop(self) -> None:
        """Stop the runner as Ctrl-C does."""
        self.runner.send_signal(signal.SIGINT)
        self.codes[self.runner.wait(PATIENCE_SECONDS)] += 1


def counted(bench: Bench) -> dict[str, object]:
    """Count what the journal holds, record by record, and compare it with its totals and with the ledger."""
    folder = bench.folder
    written = [entry for _, entry in entries(folder, folder.name)]
    measured = [entry.interval for entry in written if isinstance(entry, Measured)]
    numbers = [interval.number for interval in measured]
    windows = [interval.window for interval in measured if interval.window is not None]
    state = recover(folder).state
    whole = windows[0]
    for window in windows[1:]:
        whole = merge(whole, window)
    told = list(read_run(folder).intervals)
    return {
        "intervals": Counter(interval.state.value for interval in told),
        "kept_total": len(measured),
        "numbers_twice": len(numbers) - len(set(numbers)),
        "runners_total": sum(isinstance(entry, Begun) for entry in written),
        "left_in_order_total": sum(isinstance(entry, Left) for entry in written),
        "longest_run_of_lost": longest([interval.state is IntervalState.LOST for interval in told]),
        "due_total": sum(window.due_total for window in windows),
        "in_totals": {
            "due": sum(window.due_total for window in windows) == state.totals.due_total,
            "ended": sum(window.operations_total for window in windows)
            == state.totals.succeeded_total + state.totals.failed_total,
            "skipped": sum(window.skipped_total for window in windows) == state.totals.skipped_total,
            "ambiguous": sum(window.ambiguous_total for window in windows) == state.totals.ambiguous_total,
            "histogram": whole.response == state.whole.response
            and whole.response.total == sum(window.response.total for window in windows),
        },
        "ledger": in_ledger(bench, measured),
        "takeovers_checked": sum(
            event.kind is EventKind.INTEGRITY and event.text.startswith("The ledger holds all")
            for interval in told
            for event in interval.events
        ),
    }


def in_ledger(bench: Bench, measured: list) -> dict[str, int]:
    """Compare, runner by runner, what kept intervals acknowledged with what the database has."""
    acknowledged: Counter[int] = Counter()
    for interval in measured:
        if interval.window is not None:
            acknowledged[interval.epoch] += sum(
                one.response.total - one.failed_total
                for kind, one in interval.window.operations.items()
                if kind not in SOAK_MIX.read_only
            )
    with psycopg.connect(bench.server.dsn) as connection:
        there = dict(connection.execute(LEDGER, [bench.folder.name]).fetchall())
    return {
        "acknowledged_total": acknowledged.total(),
        "committed_total": sum(there.values()),
        "runners_with_less": sum(there.get(epoch, 0) < count for epoch, count in acknowledged.items()),
    }


def longest(flags: list[bool]) -> int:
    """Return the length of the longest stretch of true ones."""
    most = now = 0
    for flag in flags:
        now = now + 1 if flag else 0
        most = max(most, now)
    return most


def findings(found: dict[str, object], bench: Bench, crashes: int) -> dict[str, bool]:
    """Return what was to be shown, and whether it was."""
    begun = [kill for kill in bench.kills if kill["had_begun"]]
    return {
        "each kill lost at most one interval, as the journal is read": found["intervals"][IntervalState.LOST.value]
        <= len(begun),
        # by the clock of the one who kills: an interval that is over and not yet written, and what has begun since
        "no kill took what was older than the interval before": max(
            (kill["unrecorded_seconds"] for kill in begun), default=0.0
        )
        < 2 * INTERVAL_SECONDS,
        "no record is of an interval that has one already": found["numbers_twice"] == 0,
        "kept intervals add up to the totals, histograms too": all(found["in_totals"].values()),
        "the ledger holds what was acknowledged, of every runner": found["ledger"]["runners_with_less"] == 0,
        "no runner found a violation": not bench.codes.keys() - {-signal.SIGKILL, 130},
        "every crash of PostgreSQL was seen": crashes <= found["intervals"][IntervalState.SERVER_DOWN.value],
    }


def main() -> None:
    """Kill, count, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of the runner")
    parser.add_argument("--crashes", type=int, default=20, help="of PostgreSQL")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        home.mkdir()
        with EmbeddedServer.start(
            Path(folder) / "server", binaries=find_binaries(None), system_state=Path(folder) / "system"
        ) as server:
            bench = Bench(server, home, random.Random(arguments.seed))
            found = run(bench, arguments.kills, arguments.crashes)
    shown = findings(found, bench, arguments.crashes)
    result = {
        **{"kills": bench.kills, "crashes": arguments.crashes, "seed": arguments.seed, "shown": shown},
        **{"codes": bench.codes, "seconds": time.monotonic() - began, "load_average_at_end": os.getloadavg()[0]},
        **found,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(result)


def run(bench: Bench, kills: int, crashes: int) -> dict[str, object]:
    """Kill runner and server as often as asked, and count what there is then."""
    if bench.command("setup").wait() != 0:
        raise RuntimeError((bench.home / "stderr").read_text())
    start_seconds = 0.0
    while len(bench.kills) < kills:
        bench.kill(start_seconds + LONGEST_LIFE_SECONDS)
        if not start_seconds and len(bench.kills) < kills:
            start_seconds = first_record_seconds(bench)
    for _ in range(2):
        begun, measured = bench.count(Begun), bench.count(Measured)
        if bench.runner is None or bench.runner.poll() is not None:
            bench.begin()
        bench.wait(Begun, begun)
        bench.wait(Measured, measured + 1)
        for _ in range(crashes):
            bench.crash()
        crashes = 0
        bench.stop()
    return counted(bench)


def first_record_seconds(bench: Bench) -> float:
    """Return how long a runner takes to its first record; it is killed then."""
    began, begun = time.monotonic(), bench.count(Begun)
    bench.begin()
    bench.wait(Begun, begun)
    taken = time.monotonic() - began
    at = datetime.now(UTC)
    bench.runner.kill()
    bench.codes[bench.runner.wait()] += 1
    bench.kills.append({"had_begun": True, "unrecorded_seconds": bench.unrecorded(at, begun)})
    return taken


def show(result: dict[str, object]) -> None:
    """Print what came out."""
    begun = [kill for kill in result["kills"] if kill["had_begun"]]
    longest_seconds = max((kill["unrecorded_seconds"] for kill in begun), default=0.0)
    print(
        f"{len(result['kills'])} kills of the runner, {len(begun)} of them after its first record, and "
        f"{result['crashes']} of PostgreSQL, in {result['seconds']:,.0f} s"
    )
    print(", ".join(f"{count} {state}" for state, count in result["intervals"].items()))
    print(f"longest time that a killed runner had not recorded: {longest_seconds:.2f} s, intervals of a second")
    ledger = result["ledger"]
    print(
        f"acknowledged in kept intervals {ledger['acknowledged_total']:,}, "
        f"in the ledger {ledger['committed_total']:,}"
    )
    for what, was_shown in result["shown"].items():
        print(f"{what}: {'yes' if was_shown else 'NO'}")


if __name__ == "__main__":
    run_benchmark(main)
