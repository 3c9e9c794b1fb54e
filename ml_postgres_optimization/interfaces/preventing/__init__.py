"""Prevention on the session's server, and what it has saved."""
