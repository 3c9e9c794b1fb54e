INSERT INTO genesis.preventions (
    id, run, began_at, ended_at, error_class, probability, low, high, level, threshold, source, choice, lever, deed,
    ending, before_id, after_id, windows, operations, errors, response_seconds, is_whole, due, undone
)
VALUES (
    %(id)s, %(run)s, %(began_at)s, %(ended_at)s, %(error_class)s, %(probability)s, %(low)s, %(high)s, %(level)s,
    %(threshold)s, %(source)s, %(choice)s, %(lever)s, %(deed)s, %(ending)s, %(before_id)s, %(after_id)s, %(windows)s,
    %(operations)s, %(errors)s, %(response_seconds)s, %(is_whole)s,
    %(due)s, %(undone)s
)
ON CONFLICT (id) DO UPDATE SET (
    choice, ended_at, ending, windows, operations, errors, response_seconds, is_whole, due, undone
) = ROW(
    excluded.choice, excluded.ended_at, excluded.ending, excluded.windows, excluded.operations, excluded.errors,
    excluded.response_seconds, excluded.is_whole, excluded.due, excluded.undone
)
