DELETE FROM genesis_load.soaks WHERE run = %(run)s
