"""What became of the predictions: outcomes, skill, drift, and what that says about the model that serves."""
