"""Start two optimisers at the same moment, and see which of them runs."""

import random
import subprocess
import sys
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

PLACES = ("one folder, one database", "two folders, one database", "two folders, two databases")
OTHER = "template1"
_QUERY = """SELECT count(*) FROM pg_locks AS lock JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND application_name LIKE 'genesis-pg: settings%'"""


def pair(dsn: str, folder: Path, number: int) -> dict[str, object]:
    """Start a pair; return where they worked, what each came to, and what the loser said.

    Returns
    -------
    dict
        ``place``; ``said`` and ``codes``, sorted; ``holders``, the sessions that had the lock; ``error``.
    """
    place = random.Random(f"pair {number}").choice(PLACES)
    folders = [folder / "a", folder / ("a" if place.startswith("one") else "b")]
    other = make_conninfo(dsn, dbname=OTHER) if place.endswith("two databases") else dsn
    both = [_optimiser(one, where) for one, where in zip((dsn, other), folders, strict=True)]
    try:
        for each in both:
            assert each.stdout.readline() == "ready\n", each.stderr.read()
        for each in both:
            _tell(each)
        said = [each.stdout.readline().strip() for each in both]
        with psycopg.connect(dsn) as connection:
            (holders,) = connection.execute(_QUERY).fetchone()
        for each in both:
            _tell(each)
        errors = [each.communicate(timeout=60)[1] for each in both]
    finally:
        for each in both:
            each.kill()
            each.wait()
    return {
        "place": place,
        "said": sorted(said),
        "codes": sorted(each.returncode for each in both),
        "holders": holders,
        "error": next((error for error in errors if error), ""),
    }


def is_right(came: dict[str, object]) -> bool:
    """Tell whether exactly one ran, and the other was told why not, in two lines."""
    one_runs = came["said"] == ["refused", "runs"] and came["codes"] == [0, 4] and came["holders"] == 1
    return one_runs and len(str(came["error"]).splitlines()) == 2


def _optimiser(dsn: str, home: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name("one_optimiser.py"), dsn, home],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _tell(optimiser: subprocess.Popen) -> None:
    try:
        optimiser.stdin.write("\n")
        optimiser.stdin.flush()
    except BrokenPipeError:  # it has ended: it was refused
        return
