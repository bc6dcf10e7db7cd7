"""A client's talk, sans I/O: octets in through `receive`, octets out through `take_output`, time as an argument."""
