"""Several nodes on one store: one leads it and serves all clients; the others pass their clients on, and take over."""
