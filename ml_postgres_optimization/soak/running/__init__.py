"""The soak under way: its intervals on the wall clock, its records on disk, whatever happens meanwhile."""

from ml_postgres_optimization.soak.running.course import Course
from ml_postgres_optimization.soak.running.gauges import Gauges
from ml_postgres_optimization.soak.running.storing import Store
from ml_postgres_optimization.soak.running.timeline import Timeline
from ml_postgres_optimization.soak.running.turn import wait_for_turn
from ml_postgres_optimization.soak.running.watch import Load, Watch, nobody_watches

__all__ = ["Course", "Gauges", "Load", "Store", "Timeline", "Watch", "nobody_watches", "wait_for_turn"]
