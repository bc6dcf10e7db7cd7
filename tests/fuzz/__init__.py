"""A fuzzer of whole sessions: what clients say by the grammar of AMQP, and then not quite.

`values` draws arguments, tables and contents, `grammar` makes sessions of them: steps of several clients, with cuts,
silence and the passing of time. `stage` plays a session to a broker without sockets and holds it to what must always
be true; `live` plays it to a broker that listens. The same seed makes the same session.
"""
