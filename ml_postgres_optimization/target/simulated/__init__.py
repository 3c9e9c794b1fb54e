"""A server without a server: PostgreSQL's settings, and a response surface that is known."""

from ml_postgres_optimization.target.simulated.noise import AutoregressiveNoise, Noise, WhiteNoise
from ml_postgres_optimization.target.simulated.surface import latency_seconds
from ml_postgres_optimization.target.simulated.target import SimulatedTarget

__all__ = ["AutoregressiveNoise", "Noise", "SimulatedTarget", "WhiteNoise", "latency_seconds"]
