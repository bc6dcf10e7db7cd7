"""A queue, in parts: ready messages, consumers, expiry, limits, dead letters, and their composition."""
