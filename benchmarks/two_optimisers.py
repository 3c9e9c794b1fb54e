"""Start two optimisers at the same moment, again and again: exactly one of them may run.

Each is a process of its own, and both are let go when both are ready. They work in one state folder and one database,
in two folders, or in two folders and two databases of the server, by lot.

    python benchmarks/two_optimisers.py --pairs 100
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "postgres"))

from running import run_benchmark  # noqa: E402
from two_optimisers import is_right, pair  # noqa: E402  (its folder is no package)

from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "two_optimisers.json"


def main() -> None:
    """Start the pairs, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    arguments = parser.parse_args()
    pairs = []
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedServer.start(Path(folder) / "server", binaries=find_binaries(None)) as server:
            for number in range(arguments.pairs):
                with tempfile.TemporaryDirectory() as homes:
                    pairs.append(pair(server.dsn, Path(homes), number))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(pairs, indent=1) + "\n", encoding="utf-8")
    right = Counter(str(each["place"]) for each in pairs if is_right(each))
    for place, count in sorted(Counter(str(each["place"]) for each in pairs).items()):
        print(f"{place}: {count} pairs, exactly one ran in {right[place]}")
    for number, each in enumerate(pairs):
        if not is_right(each):
            print(f"pair {number}: {each}")


if __name__ == "__main__":
    run_benchmark(main)
