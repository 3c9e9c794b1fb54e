"""Three roles with no more rights than they need: to observe, to advise, to tune; and the settings of any role."""

from ml_postgres_optimization.target.postgres.roles.making import RolesPlan, make_roles, plan_roles
from ml_postgres_optimization.target.postgres.roles.names import ADVISE, OBSERVE, ROLES, TUNE
from ml_postgres_optimization.target.postgres.roles.removal import removal_statements
from ml_postgres_optimization.target.postgres.roles.role_settings import RoleSettings, grants

__all__ = [
    "ADVISE",
    "OBSERVE",
    "ROLES",
    "TUNE",
    "RoleSettings",
    "RolesPlan",
    "grants",
    "make_roles",
    "plan_roles",
    "removal_statements",
]
