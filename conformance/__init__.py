"""Conformance: what AMQP 0-9-1 clients of RabbitMQ rely on, asked of any broker over TCP.

    pytest conformance --broker amqp://guest:guest@127.0.0.1:5672/ [--restart "COMMAND"]

With `--restart`, a shell command that restarts the broker cleanly and returns when it serves clients again on the same
port and data, the tests of restarts take part too. For RabbitMQ it is
`python conformance/rabbitmq.py --restart-of DIR`.

Nothing here imports amqpd. `fields` and `methods` are the wire's vocabulary, `client` speaks frames and methods,
`channel` wraps a channel in typed calls, `rabbitmq` starts the judge: a test that RabbitMQ fails is a misreading of
ours. Sections named in docstrings (§1 to §37) are those of the semantics reference.
"""
