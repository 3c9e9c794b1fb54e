INSERT INTO genesis.predictions (
    kind, model_id, run, made_at, window_started_at, configuration_id, value, low, high, level, naive_value
)
VALUES (
    %(kind)s, %(model_id)s, %(run)s, %(made_at)s, %(window_started_at)s, %(configuration_id)s, %(value)s,
    %(low)s, %(high)s, %(level)s, %(naive_value)s
)
