SELECT coalesce(min({key}), 0) - 1, coalesce(max({key}), 0) FROM {table}
