"""Names, routing and queueing, in plain synchronous Python, without frames, awaits, SQL or access to a clock."""
