SELECT epoch, balance::text FROM genesis_load.soaks WHERE run = %(run)s
