"""A queue, in parts: what waits, who consumes, what expires, and the composition of it."""
