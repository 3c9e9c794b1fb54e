"""Optimise a live PostgreSQL by machine learning, safely."""

__version__ = "0.1.0"
