"""The loop: from evidence to decisions, retraining, proof, promotion and rollback."""
