-- One row for each runner that is gone, in place of its sessions' seats. Waits for what they have under way; what they
-- begin later finds no seat, and changes nothing.
WITH gone AS (
    DELETE FROM genesis_load.ledger WHERE run = %(run)s AND epoch < %(epoch)s AND NOT is_folded
    RETURNING epoch, committed
)
INSERT INTO genesis_load.ledger (run, epoch, committed, is_folded)
SELECT %(run)s, epoch, sum(committed), true FROM gone GROUP BY epoch
