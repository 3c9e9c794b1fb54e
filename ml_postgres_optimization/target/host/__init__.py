"""The host behind the server: memory, processors, disk, pressure."""
