SELECT genesis.maintain() AS all_done
