"""The work of the commands `amqpd store …` on a store that no broker has open: info, check, copy, salvage, compact.

A command that only reads leaves the store and its write-ahead log as they were. A new file gets its final name when it
is complete and on disk.
"""
