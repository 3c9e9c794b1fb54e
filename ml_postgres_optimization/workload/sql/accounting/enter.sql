-- Transfers never change the sum of all balances: what it is now, it must be at every later look.
INSERT INTO genesis_load.soaks (run, epoch, balance)
SELECT %(run)s, %(epoch)s, coalesce(sum(balance), 0) FROM genesis_load.accounts
