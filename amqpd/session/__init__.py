"""A client's session, sans I/O: bytes in through `receive`, bytes out through `take_output`, time as an argument."""
