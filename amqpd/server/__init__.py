"""The event loop and the process: sockets, clocks, signals, and the thread that commits."""
