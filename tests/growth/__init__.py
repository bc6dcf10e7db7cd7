"""How the cost of operations grows with what there is."""
