"""Peak memory of ``genesis-pg optimize``, the load generator's processes and PostgreSQL itself told apart.

python benchmarks/footprint.py --hours 0.02
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

RESULT = Path(__file__).parent / "results" / "footprint.json"
ROOT = Path(__file__).resolve().parents[1]


def resident_bytes(process: psutil.Process) -> tuple[int, int]:
    """Return the resident memory of the optimiser itself, and of its load generator's processes."""
    load = 0
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            if "ml_postgres_optimization" in " ".join(child.cmdline()):
                load += child.memory_info().rss
    return process.memory_info().rss, load


def main() -> None:
    """Run the optimiser, and look at its memory four times a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", default="0.02")
    arguments = parser.parse_args()
    peak = [0, 0]
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, str(ROOT / "run.py"), "--mode", "optimize", "--duration", arguments.hours]
        started = subprocess.Popen(command, env={**os.environ, "GENESIS_HOME": home}, stdout=subprocess.DEVNULL)
        process = psutil.Process(started.pid)
        while started.poll() is None:
            with suppress(psutil.Error):
                peak = [max(pair) for pair in zip(peak, resident_bytes(process), strict=True)]
            time.sleep(0.25)
    result = {"hours": arguments.hours, "optimizer_bytes": peak[0], "load_generator_bytes": peak[1]}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"optimizer {peak[0] / 2**20:.0f} MiB (wanted: 400 at most), load generator {peak[1] / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
