"""The machine that a server runs on, as Linux shows it."""

from ml_postgres_optimization.target.host.boot import boot_name
from ml_postgres_optimization.target.host.locality import (
    data_directory_if_local,
    postmaster_pid_if_local,
    program_folder,
)
from ml_postgres_optimization.target.host.machine import read_machine
from ml_postgres_optimization.target.host.own_process import has_open, own_resources
from ml_postgres_optimization.target.host.probe import HostProbe, HostReading
from ml_postgres_optimization.target.host.server_memory import ServerMemory

__all__ = [
    "HostProbe",
    "HostReading",
    "ServerMemory",
    "boot_name",
    "data_directory_if_local",
    "has_open",
    "own_resources",
    "postmaster_pid_if_local",
    "program_folder",
    "read_machine",
]
