"""The DVC stages: each reads files, calls tradeloop, writes files."""
