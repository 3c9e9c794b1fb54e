-- Trials with their pairs, oldest first.
SELECT
    trial.*,
    baseline.values AS baseline_values,
    candidate.values AS candidate_values,
    pair.baselines,
    pair.candidates,
    pair.candidate_first
FROM genesis.trials AS trial
JOIN genesis.configurations AS baseline ON baseline.id = trial.baseline_id
JOIN genesis.configurations AS candidate ON candidate.id = trial.candidate_id
CROSS JOIN LATERAL (
    SELECT
        coalesce(array_agg(baseline_seconds ORDER BY number), '{}') AS baselines,
        coalesce(array_agg(candidate_seconds ORDER BY number), '{}') AS candidates,
        coalesce(array_agg(candidate_first ORDER BY number), '{}') AS candidate_first
    FROM genesis.trial_pairs
    WHERE trial_id = trial.id
) AS pair
ORDER BY trial.started_at, trial.id
