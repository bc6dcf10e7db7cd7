"""Names, routing and queueing, in plain synchronous Python: never a byte of a frame, an await, SQL or the clock."""
