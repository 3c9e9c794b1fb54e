"""The specification's entry point: ``python run.py --mode all`` from any folder, without installing the project."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from ml_postgres_optimization.interfaces.cli import run_main

if __name__ == "__main__":
    run_main()
