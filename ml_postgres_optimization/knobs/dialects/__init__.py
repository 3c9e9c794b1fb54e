"""Settings in the words of whoever sets them: SQL, a configuration file, a cluster's manifest, a cloud's command."""

from ml_postgres_optimization.knobs.dialects.choosing import MANAGERS, accepted_by, in_the_words_of
from ml_postgres_optimization.knobs.dialects.files import alter_database, alter_system, configuration_file
from ml_postgres_optimization.knobs.dialects.item import Item

__all__ = [
    "MANAGERS",
    "Item",
    "accepted_by",
    "alter_database",
    "alter_system",
    "configuration_file",
    "in_the_words_of",
]
