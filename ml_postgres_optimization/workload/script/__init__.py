"""The language of pgbench's scripts, so that users can bring their own workload as a folder of ``.sql`` files."""

from ml_postgres_optimization.workload.script.command import Script
from ml_postgres_optimization.workload.script.expression import Stored
from ml_postgres_optimization.workload.script.folder import Folder, Setup, read_workload
from ml_postgres_optimization.workload.script.mix import ScriptMix
from ml_postgres_optimization.workload.script.parsing import parse_script, split_statements
from ml_postgres_optimization.workload.script.performing import ScriptStopped, script_performer
from ml_postgres_optimization.workload.script.playing import Playable, play

__all__ = [
    "Folder",
    "Playable",
    "Script",
    "ScriptMix",
    "ScriptStopped",
    "Setup",
    "Stored",
    "parse_script",
    "play",
    "read_workload",
    "script_performer",
    "split_statements",
]
