SELECT /* genesis-pg */ set_config('genesis_pg.duty', %(duty)s, false)
