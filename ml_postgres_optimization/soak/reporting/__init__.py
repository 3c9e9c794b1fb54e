"""A judged run as JSON, CSV and .hlog."""
