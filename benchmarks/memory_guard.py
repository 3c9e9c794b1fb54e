"""Draw machines and configurations: nothing that the guard lets pass may be predicted to need too much memory.

Each is another machine, from 256 MiB to 4 TiB, on which other values are in force, and a configuration of up to a
dozen knobs. Some are drawn for this very machine: what passes is given to a scratch server of the same programs,
which has to start with it.

    python benchmarks/memory_guard.py --configurations 10000 --rehearsed 500
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "postgres"))

from random_machines import Chance  # noqa: E402  (its folder is no package)
from running import run_benchmark  # noqa: E402

from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries  # noqa: E402
from ml_postgres_optimization.target.restart import Rehearsal  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "memory_guard.json"


def main() -> None:
    """Draw them, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", type=int, default=10_000)
    parser.add_argument("--rehearsed", type=int, default=500, help="How many of them are drawn for this machine.")
    arguments = parser.parse_args()
    binaries, wrong = find_binaries(None), {}
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with (
            EmbeddedServer.start(folder / "server", binaries=binaries) as server,
            Rehearsal(binaries, parent=folder) as rehearsal,
        ):
            chance = Chance.of(server.dsn, rehearsal)
            for number in range(arguments.configurations):
                try:
                    chance.try_one(random.Random(number), rehearse=number < arguments.rehearsed)
                except AssertionError as error:
                    wrong[number] = str(error)
    RESULT.parent.mkdir(exist_ok=True)
    came = {"postgresql": binaries.version, "seen": dict(chance.seen), "wrong": wrong}
    RESULT.write_text(json.dumps(came, indent=1) + "\n", encoding="utf-8")
    for what, count in chance.seen.most_common():
        print(f"{what}: {count}")
    print(f"wrong: {wrong or 'none'}")


if __name__ == "__main__":
    run_benchmark(main)
