"""The store in PostgreSQL, for who has outgrown one machine. Needs psycopg: `pip install 'amqpd[postgres]'`."""
