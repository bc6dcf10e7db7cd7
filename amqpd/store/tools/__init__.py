"""What is done to a store that no broker has open: told of, checked, copied, salvaged, made smaller.

The commands `amqpd store …` ask for it. Whatever is only read is left as it was, log included; whatever is made
gets its name when it is whole and on disk.
"""
