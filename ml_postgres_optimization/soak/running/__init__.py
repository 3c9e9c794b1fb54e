"""The soak under way: its intervals on the wall clock, its records on disk, whatever happens meanwhile."""

from ml_postgres_optimization.soak.running.course import Course, Load, Watch, nobody_watches
from ml_postgres_optimization.soak.running.storing import Store
from ml_postgres_optimization.soak.running.timeline import Timeline
from ml_postgres_optimization.soak.running.turn import wait_for_turn

__all__ = ["Course", "Load", "Store", "Timeline", "Watch", "nobody_watches", "wait_for_turn"]
