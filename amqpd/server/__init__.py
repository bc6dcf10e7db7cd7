"""The room that waits: sockets, clocks, signals and the thread that commits."""
