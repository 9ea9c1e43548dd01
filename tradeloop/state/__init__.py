"""State: the feature store, and the database of predictions and model events."""
