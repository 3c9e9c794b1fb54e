UPDATE genesis_load.soaks SET epoch = %(epoch)s, taken_at = clock_timestamp()
WHERE run = %(run)s AND epoch < %(epoch)s
