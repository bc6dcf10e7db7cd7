"""Conformance tests: what clients of RabbitMQ rely on in AMQP 0-9-1, tested over TCP against any broker.

    python -m conformance amqp://guest:guest@127.0.0.1:5672/ [--restart COMMAND] [--ctl COMMAND]

README.md says what the options add and how a broker is described; SEMANTICS.md holds the chapters that the tests cite.

Nothing here imports amqpd. `fields` and `methods` are the wire's vocabulary, `client` speaks frames and methods,
`channel` wraps a channel in typed calls. `capabilities` names what a test may need, `target` finds out what the broker
under test has, `table` is the end of a run. `rabbitmq` starts the judge: a test that RabbitMQ fails is a misreading of
ours.
"""
