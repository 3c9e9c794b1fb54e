"""The subcommands of ``genesis-pg``, each a function that opens a session and does one thing in it."""
