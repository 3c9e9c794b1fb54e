"""The watchdog stands by beside every run: its imports cost time at the start, and memory as long as that runs."""

import subprocess
import sys


def test_the_watchdog_imports_neither_pandas_nor_the_models():
    code = (
        "import sys, ml_postgres_optimization.safety.protection.post; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'pandas', 'sklearn', 'scipy', 'optuna'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
