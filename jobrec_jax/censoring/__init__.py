"""Learning from outcomes that only some pairs show: estimators, their fits, self-censoring."""
