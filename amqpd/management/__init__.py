"""Management: how operators and programs inspect a running broker and change it, apart from AMQP."""
