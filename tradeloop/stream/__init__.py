"""Streamed bars: from an origin, through the journal and the features, into the online store."""
