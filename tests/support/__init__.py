"""What the tests share: a client without sockets, journals that remember or refuse, samples, and a clock."""
