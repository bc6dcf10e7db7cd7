"""How people and programs look into a running broker and tell it what to do, besides AMQP."""
