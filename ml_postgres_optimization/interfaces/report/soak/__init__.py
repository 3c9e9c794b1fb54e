"""The extended test as one page: what a manager reads first, and what a DBA looks at below."""

from ml_postgres_optimization.interfaces.report.soak.soak_page import render_soak

__all__ = ["render_soak"]
