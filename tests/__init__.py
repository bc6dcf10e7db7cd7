"""The tests: one folder for each package of amqpd, and shared code in `support`."""
