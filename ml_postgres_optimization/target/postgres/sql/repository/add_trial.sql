INSERT INTO genesis.trials (
    id, started_at, ended_at, baseline_id, candidate_id, origin, reason, outcome, ratio, ratio_low, ratio_high,
    verdict_reason, predicted_ratio, predicted_low, predicted_high, figures, design,
    slower_parts
)
VALUES (
    %(id)s, %(started_at)s, %(ended_at)s, %(baseline_id)s, %(candidate_id)s, %(origin)s, %(reason)s, %(outcome)s,
    %(ratio)s, %(ratio_low)s, %(ratio_high)s, %(verdict_reason)s, %(predicted_ratio)s, %(predicted_low)s,
    %(predicted_high)s, %(figures)s, %(design)s, %(slower_parts)s
)
ON CONFLICT (id) DO UPDATE SET (
    started_at, ended_at, baseline_id, candidate_id, origin, reason, outcome, ratio, ratio_low, ratio_high,
    verdict_reason, predicted_ratio, predicted_low, predicted_high, figures, design,
    slower_parts
) = ROW(
    excluded.started_at, excluded.ended_at, excluded.baseline_id, excluded.candidate_id, excluded.origin,
    excluded.reason, excluded.outcome, excluded.ratio, excluded.ratio_low, excluded.ratio_high,
    excluded.verdict_reason, excluded.predicted_ratio, excluded.predicted_low, excluded.predicted_high,
    excluded.figures, excluded.design, excluded.slower_parts
)
