"""The one look at the holdout: scores with intervals, baselines, trading after costs, controls, and what they prove."""
