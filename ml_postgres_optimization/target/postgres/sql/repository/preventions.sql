-- Occasions with what was in force before and by the lever, oldest first.
SELECT
    occasion.*,
    before.values AS before_values,
    after.values AS after_values
FROM genesis.preventions AS occasion
JOIN genesis.configurations AS before ON before.id = occasion.before_id
LEFT JOIN genesis.configurations AS after ON after.id = occasion.after_id
ORDER BY occasion.began_at, occasion.id
