"""What rabbitmqctl and rabbitmq-diagnostics print, to compare amqpctl with."""
