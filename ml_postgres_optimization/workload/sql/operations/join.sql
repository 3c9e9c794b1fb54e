SELECT account_id, balance, count(operation_id) AS operations, sum(amount) AS turnover
FROM genesis_load.accounts
LEFT JOIN genesis_load.operations USING (account_id)
WHERE account_id BETWEEN $1 AND $1 + 99
GROUP BY account_id, balance
ORDER BY turnover DESC NULLS LAST, account_id
LIMIT 10
