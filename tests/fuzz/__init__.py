"""Two fuzzers: one of whole sessions, and one of single inputs that is guided by the code that they reach.

Sessions: clients send what the grammar of AMQP allows, and variations that it does not. `values` draws arguments,
tables and contents; `grammar` makes sessions of them: steps of several clients, with lost connections, silence and time
that passes. `stage` plays a session to a broker without sockets and checks what must always be true. The same seed
makes the same session.

Inputs: `targets/` has what reads bytes from outside, and what must always be true of it. `guided` runs a target in a
process of its own (`instrumented`), where atheris tells libFuzzer what an input reaches. Inputs that reach something
new are kept in `corpus/`, and tested without atheris for what they cost (`counting`).
"""
