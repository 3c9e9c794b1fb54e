"""Give the program input that nobody would type, and see that it always says in two lines what is wrong with it.

Each case is drawn from its kind and number: connections, command lines, the environment, names and places on a
real server, folders of scripts, journals, catalogues, stored models, studies. A case is wrong where there is a
traceback or a defect is told of, where the exit code is not one that fits, where there are more or less than two
lines, or where the password that was in the input stands in what was printed or in a file.

    python benchmarks/fuzzing.py --cases 5000
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "postgres"))

from fuzzing import ERRORS, Sandbox, complaint_about_file, whole_files  # noqa: E402  (its folder is no package)
from running import run_benchmark  # noqa: E402

from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "fuzzing.json"
# Of a hundred cases.
SHARES = {
    "dsn": 20,
    "command_line": 20,
    "environment": 14,
    "name": 8,
    "workload": 10,
    "journal": 8,
    "catalogue": 8,
    "artefact": 8,
    "study": 4,
}


def main() -> None:
    """Play the cases, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument(
        "--from", type=int, default=0, dest="first", help="The number of the first case of each kind."
    )
    arguments = parser.parse_args()
    came: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "changed").mkdir()
        with EmbeddedServer.start(folder / "server", binaries=find_binaries(None)) as server:
            sandbox, whole = Sandbox.at(folder / "sandbox", server.dsn), whole_files(folder)
            for kind, share in SHARES.items():
                numbers = range(arguments.first, arguments.first + max(1, arguments.cases * share // 100))
                began, wrong = time.monotonic(), {}
                for number in numbers:
                    complaint = (
                        complaint_about_file(kind, number, folder / "changed", whole[kind])
                        if kind in ERRORS
                        else sandbox.complaint(kind, number)
                    )
                    if complaint:
                        wrong[number] = complaint
                        print(f"{kind} {number}: {complaint}", flush=True)
                came[kind] = {"cases": len(numbers), "seconds": time.monotonic() - began, "wrong": wrong}
                print(f"{kind}: {len(numbers)} cases, {len(wrong)} wrong", flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(came, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_benchmark(main)
