INSERT INTO genesis_load.event_log (account_id, other_account_id, amount, payload)
VALUES ($1, $2, $3, 'moved between two accounts in one transaction')
