"""What stands behind the HTTP service: requests, the champion in memory, the engine, the routes."""
