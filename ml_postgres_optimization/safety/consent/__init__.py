"""What the owner of a server allows, and when."""

from ml_postgres_optimization.safety.consent.approval import Answer, Approvals, Asking
from ml_postgres_optimization.safety.consent.change_window import ChangeWindow, ChangeWindows, parse_windows
from ml_postgres_optimization.safety.consent.consent import LEAVE_SECONDS, Consent, Hindrance
from ml_postgres_optimization.safety.consent.pause import PauseFile

__all__ = [
    "LEAVE_SECONDS",
    "Answer",
    "Approvals",
    "Asking",
    "ChangeWindow",
    "ChangeWindows",
    "Consent",
    "Hindrance",
    "PauseFile",
    "parse_windows",
]
