"""amqpd: an AMQP 0-9-1 message broker that keeps everything durable in one SQLite file."""

__version__ = "0.1.0"
