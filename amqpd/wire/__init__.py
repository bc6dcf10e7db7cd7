"""Octets and frames: cutting them, packing them, and refusing what is none. Does not know what a queue is."""
