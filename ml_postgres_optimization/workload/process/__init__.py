"""One client process of the load generator: ``python -m`` runs it, its parent steers it through a pipe."""
