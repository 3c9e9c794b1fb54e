"""``python -m ml_postgres_optimization.interfaces.cli``: ``genesis-pg``, wherever that is not on the path."""

from ml_postgres_optimization.interfaces.cli import main

if __name__ == "__main__":
    main()
