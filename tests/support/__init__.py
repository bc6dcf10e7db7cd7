"""Shared by the tests: a client without sockets, journals that record or refuse, samples, and a clock."""
