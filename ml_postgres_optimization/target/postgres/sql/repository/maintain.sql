SELECT genesis.maintain()
