"""Everything that knows SQL and the files of SQLite."""
