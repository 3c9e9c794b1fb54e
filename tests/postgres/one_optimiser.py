"""Be an optimiser: get ready, wait for a word, take the right to change the server, and keep it until told to end.

    python one_optimiser.py DSN HOME

Says ``ready``, then ``runs`` or ``refused``, each on a line; ends with the exit code that the program would have.
"""

import os
import sys
from pathlib import Path

from ml_postgres_optimization.errors import GenesisError
from ml_postgres_optimization.interfaces.home import Home
from ml_postgres_optimization.interfaces.reporter import Silence
from ml_postgres_optimization.interfaces.session import open_session
from ml_postgres_optimization.interfaces.settings import Settings


def main() -> int:
    """Do it."""
    dsn, home = sys.argv[1], Path(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        with (
            open_session(Settings(dsn=dsn), Home(home, home / "logs"), os.environ, Silence()) as session,
            session.sole_optimizer(),
        ):
            print("runs", flush=True)
            sys.stdin.readline()
    except GenesisError as error:
        print("refused", flush=True)
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
