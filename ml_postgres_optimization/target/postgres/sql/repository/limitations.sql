SELECT genesis.limitations()
