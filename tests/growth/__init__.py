"""Check how the cost of operations grows with the number of objects."""
