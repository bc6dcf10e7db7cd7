"""A fuzzer of whole sessions: clients send what the grammar of AMQP allows, and variations that it does not.

`values` draws arguments, tables and contents; `grammar` makes sessions of them: steps of several clients, with lost
connections, silence and time that passes. `stage` plays a session to a broker without sockets and checks what must
always be true; `live` plays it to a broker that listens. The same seed makes the same session.
"""
