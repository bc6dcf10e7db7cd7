"""What a store shows to any PostgreSQL tool: the views `messages` and `queues`, as `sqlite/views.py` describes them.

A text that PostgreSQL cannot have, since it has a character NUL, is shown with escapes; `text` is NULL for a body that
is no text.
"""

from __future__ import annotations

from amqpd.message import BODY_OFFSET_IN_HEADER_FRAME
from amqpd.store.rows.body_use import ID_STEP
from amqpd.store.rows.message_blocks import HEAD


def _number(at: int, size: int) -> str:
    """Return the SQL for the big-endian number in `size` bytes of `head`, from `at` on."""
    return "(" + " + ".join([
        f"get_byte(head, {at + place})::bigint * {256 ** (size - 1 - place)}" for place in range(size)]) + ")"


# Is not inlined and may not fail: bytes that are no text give NULL.
_AS_TEXT = """
    CREATE FUNCTION as_text(bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    BEGIN
        RETURN convert_from($1, 'UTF8');
    EXCEPTION WHEN OTHERS THEN
        RETURN NULL;
    END $$"""

# What `rows/message_blocks.py` says of heads and flags.
_BLOCK_HEADS = f"""
    CREATE VIEW block_heads AS
    SELECT
        first, queue, first + {_number(0, 2)} AS number,
        (flags IS NOT NULL AND substr(flags, 1 + {_number(0, 2)}::int, 1) = 'R')::int AS redelivered,
        {_number(2, 4)} AS start, {_number(6, 1)} AS exchange_size, {_number(7, 1)} AS key_size,
        {_number(8, 2)} AS properties_size, {_number(10, 4)} AS body_size
    FROM (
        SELECT block.first, queue, flags, substr(heads, 1 + at * {HEAD.size}, {HEAD.size}) AS head
        FROM message_blocks AS block LEFT JOIN block_flags AS flag ON flag.first = block.first
        CROSS JOIN LATERAL generate_series(0, length(heads) / {HEAD.size} - 1) AS at
    ) AS pieces
    WHERE flags IS NULL OR substr(flags, 1 + {_number(0, 2)}::int, 1) NOT IN ('-', '')"""

_NAMES = "start + 2"
_PROPERTIES = f"start + 3 + exchange_size + key_size + {BODY_OFFSET_IN_HEADER_FRAME}"
_PLACES = f"""
    SELECT queue, m.number, m.redelivered, m.deliveries, m.expires_at, exchange, routing_key, properties,
        coalesce(body_size, length(body)) AS size,
        CASE WHEN body_id IS NULL THEN body ELSE (
            SELECT string_agg(data, '' ORDER BY part.number) FROM body_parts AS part
            WHERE part.number BETWEEN body_id AND body_id + {ID_STEP - 1}) END AS body
    FROM message_rows AS m WHERE queue IS NOT NULL
    UNION ALL SELECT e.queue, e.number, e.redelivered, e.deliveries, e.expires_at, exchange, routing_key, properties,
        coalesce(body_size, length(body)),
        CASE WHEN body_id IS NULL THEN body ELSE (
            SELECT string_agg(data, '' ORDER BY part.number) FROM body_parts AS part
            WHERE part.number BETWEEN body_id AND body_id + {ID_STEP - 1}) END
    FROM entries AS e JOIN message_rows AS m ON m.number = e.number
    UNION ALL SELECT head.queue, head.number, head.redelivered, 0, NULL,
        substr(contents, ({_NAMES})::int, exchange_size::int),
        substr(contents, ({_NAMES} + exchange_size + 1)::int, key_size::int),
        substr(contents, ({_PROPERTIES})::int, properties_size::int), body_size,
        substr(contents, ({_PROPERTIES} + properties_size + 8)::int, body_size::int)
    FROM block_heads AS head JOIN message_blocks AS block ON block.first = head.first"""

_MESSAGES = f"""
    CREATE VIEW messages AS SELECT
        owner.vhost, owner.name AS queue, place.number,
        coalesce(as_text(exchange), encode(exchange, 'escape')) AS exchange,
        coalesce(as_text(routing_key), encode(routing_key, 'escape')) AS routing_key,
        size, as_text(body) AS text, redelivered, deliveries,
        to_char(to_timestamp(expires_at / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS expires,
        expires_at, properties, body
    FROM ({_PLACES}) AS place JOIN queue_rows AS owner ON owner.number = place.queue"""

_QUEUES = f"""
    CREATE VIEW queues AS SELECT
        vhost, name,
        CASE WHEN strpos(arguments, '"x-queue-type": "quorum"') > 0 THEN 'quorum' ELSE 'classic' END AS type,
        auto_delete, arguments, coalesce(held.messages, 0) AS messages, coalesce(held.octets, 0)::bigint AS octets,
        number, is_paused
    FROM queue_rows LEFT JOIN (
        SELECT queue, count(*) AS messages, sum(size) AS octets FROM ({_PLACES}) AS place GROUP BY queue
    ) AS held ON held.queue = queue_rows.number"""

VIEWS = (_AS_TEXT, _BLOCK_HEADS, _MESSAGES, _QUEUES)
