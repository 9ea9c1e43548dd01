"""A reference bot: it asks the service, trades on a simulated exchange, and reports its fills."""
