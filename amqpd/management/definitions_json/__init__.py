"""RabbitMQ's definitions.json: export the definitions of a broker, and import a file of them.

`parsing` reads JSON, `checking` makes a `Plan` of it or lists everything that is wrong, `applying` carries the plan
out, `exporting` writes. `entries` reads single values, and `kept` has what amqpd does not have itself: it is stored as
parameters and exported again.

RabbitMQ docs/definitions.
"""
