"""A market replayed through the loop's own code on a virtual clock."""
