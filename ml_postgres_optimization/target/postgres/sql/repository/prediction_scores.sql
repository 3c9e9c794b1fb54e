SELECT
    kind,
    model_id,
    predictions,
    scored,
    mean_absolute_error,
    naive_mean_absolute_error,
    mean_squared_error,
    naive_mean_squared_error,
    coverage,
    level
FROM genesis.prediction_scores
ORDER BY kind, last_made_at
