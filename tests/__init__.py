"""The tests: a folder per room, and what they share in `support`."""
