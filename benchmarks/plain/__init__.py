"""The plain way, family by family: each module's `COLUMNS` has one pandas expression a column."""
