SELECT genesis.score_predictions() AS scored
