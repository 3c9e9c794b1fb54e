INSERT INTO genesis.predictions (
    kind, model_id, run, made_at, window_started_at, value, low, high, level, naive_value
)
VALUES (
    %(kind)s, %(model_id)s, %(run)s, %(made_at)s, %(window_started_at)s, %(value)s, %(low)s, %(high)s, %(level)s,
    %(naive_value)s
)
