"""The management HTTP API: the same requests to RabbitMQ and to the broker under test, answers compared by shape.

`scenarios/` holds the requests as data, `recorded/` what RabbitMQ 3.10.8 answered, `shapes` says what a shape is and
when an answer fits, `running` sends the requests, `recording` writes `recorded/`. README.md in this folder explains it.
"""
