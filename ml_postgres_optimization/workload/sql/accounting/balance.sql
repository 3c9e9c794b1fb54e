SELECT coalesce(sum(balance), 0)::text FROM genesis_load.accounts
