-- The pairs of a trial in place of those that were there.
WITH superfluous AS (
    DELETE FROM genesis.trial_pairs WHERE trial_id = %(id)s AND number > cardinality(%(baselines)s::double precision[])
)
INSERT INTO genesis.trial_pairs (trial_id, number, baseline_seconds, candidate_seconds, candidate_first)
SELECT %(id)s, pair.number, pair.baseline_seconds, pair.candidate_seconds, pair.candidate_first
FROM unnest(%(baselines)s::double precision[], %(candidates)s::double precision[], %(candidate_first)s::boolean[])
    WITH ORDINALITY AS pair (baseline_seconds, candidate_seconds, candidate_first, number)
ON CONFLICT (trial_id, number) DO UPDATE SET
    baseline_seconds = excluded.baseline_seconds,
    candidate_seconds = excluded.candidate_seconds,
    candidate_first = excluded.candidate_first
