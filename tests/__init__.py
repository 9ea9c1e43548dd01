"""The tests; they mirror tradeloop/."""
