"""Octets and frames: cut them, pack them, and refuse bytes that are not frames. Does not know what a queue is."""
