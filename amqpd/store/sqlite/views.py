"""What a store shows to any SQLite tool: two views, which are for others to rely on. The tables are ours to change.

They are in every store, so in every backup. `messages` has a row for each message in each queue:

- `vhost`, `queue`, `number`: where it is; numbers rise in publish order, and are the same in all its queues;
- `exchange`, `routing_key`: what it was published with;
- `size`, `text`: the bytes of its body, and the body as text, where it is: without control characters, ASCII of
  any length or UTF-8 up to 4 KiB; else NULL;
- `redelivered`: 1 if it has been with somebody, as far as the last clean stop knew;
- `deliveries`: how many there were when it was last put back;
- `expires`, `expires_at`: its end as text, in UTC, and in milliseconds since 1970, or NULL;
- `properties`, `body`: bytes; properties are flags and values as in a content header (Spec: §4.2.6.1).

`queues` has a row for each durable queue: `vhost`, `name`, `type`, `auto_delete`, `arguments` as JSON, `messages`,
how many there are, `octets`, the bytes of their bodies, `number`, which tells it from an earlier one of its name, and
`is_paused`, 1 while nothing of it is delivered.

They stand on a third, `block_heads`, which takes blocks apart, and is ours to change too.
"""

from __future__ import annotations

from amqpd.message import BODY_OFFSET_IN_HEADER_FRAME
from amqpd.store.rows.body_use import ID_STEP
from amqpd.store.rows.message_blocks import HEAD
from amqpd.store.sqlite.statements import COUNT_WAITING

# All of ASCII that is text, but for tab, line feed and carriage return.
_ASCII = "' !\"#$%&''()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~'"


def _after_ascii(value: str) -> str:
    return f"CAST(ltrim(CAST({value} AS TEXT), char(9, 10, 13) || {_ASCII}) AS BLOB)"


# The characters beyond ASCII, in hexadecimal digits, by how many bytes they have (RFC 3629 §4).
_CHARACTERS = {
    2: ("C[2-9A-F][89AB]*", "D?[89AB]*"),
    3: ("E0[AB]?[89AB]*", "E[1-9ABCEF][89AB]?[89AB]*", "ED[89]?[89AB]*"),
    4: ("F0[9AB]?[89AB]?[89AB]?", "F[123][89AB]?[89AB]?[89AB]?", "F48?[89AB]?[89AB]?"),
}
_BYTES_OF_FIRST = " ".join([
    f"WHEN hex(substr(rest, 1, 4)) GLOB '{pattern}' THEN {size}"
    for size, patterns in _CHARACTERS.items() for pattern in patterns])

# There is no function that reads a byte as a number, but one that finds it here.
_ALL_BYTES = f"x'{bytes(range(256)).hex()}'"


def _number(value: str, at: int, size: int) -> str:
    """Return the SQL for the big-endian number in `size` bytes of this value, from `at` on."""
    return "(" + " + ".join([
        f"(instr({_ALL_BYTES}, substr({value}, {at + place + 1}, 1)) - 1) * {256 ** (size - 1 - place)}"
        for place in range(size)]) + ")"


# What `message_blocks.py` says of heads and flags. The limit, which is none, keeps SQLite from taking all heads to hand
# for each byte that is asked for below.
_BLOCK_HEADS = f"""
    CREATE VIEW block_heads AS
    WITH RECURSIVE places (at) AS (
        SELECT 0 UNION ALL SELECT at + 1 FROM places WHERE at + 1 < (SELECT max(count) FROM message_blocks)
    ), pieces (first, queue, flags, head) AS (
        SELECT block.first, queue, flags, substr(heads, 1 + at * {HEAD.size}, {HEAD.size})
        FROM message_blocks AS block LEFT JOIN block_flags AS mark ON mark.first = block.first
        CROSS JOIN places ON at * {HEAD.size} < length(heads) LIMIT -1 OFFSET 0
    ), heads (first, queue, flags, place, start, exchange_size, key_size, properties_size, body_size) AS (
        SELECT
            first, queue, flags, {_number("head", 0, 2)}, {_number("head", 2, 4)}, {_number("head", 6, 1)},
            {_number("head", 7, 1)}, {_number("head", 8, 2)}, {_number("head", 10, 4)}
        FROM pieces
    )
    SELECT
        first, queue, first + place AS number,
        coalesce(substr(flags, 1 + place, 1) = x'{ord("R"):x}', 0) AS redelivered,
        start, exchange_size, key_size, properties_size, body_size
    FROM heads WHERE flags IS NULL OR substr(flags, 1 + place, 1) NOT IN (x'{ord("-"):x}', x'')"""

_NAMES_START = "place.start + 2"
_CONTENT_START = "place.start + 3 + place.exchange_size + place.key_size"
_PROPERTIES_START = f"{_CONTENT_START} + {BODY_OFFSET_IN_HEADER_FRAME}"


def _part(column: str, start: str, size: str) -> str:
    """Return the SQL for a part of a message, which is in a column of its row or in a block."""
    return f"""
        CASE WHEN place.first IS NULL THEN message.{column}
        ELSE substr(block.contents, {start}, place.{size}) END"""


# SQLite takes all contents of a block to hand for each part of a message: nobody pays for parts that are not asked for.
_BODY = f"""
        CASE WHEN message.body_id IS NULL
        THEN {_part("body", f"{_PROPERTIES_START} + place.properties_size + 8", "body_size")}
        ELSE (SELECT CAST(group_concat(data, '') AS BLOB) FROM (
            SELECT data FROM body_parts
            WHERE number BETWEEN message.body_id AND message.body_id + {ID_STEP - 1} ORDER BY number)) END"""
_SIZE = "coalesce(place.body_size, message.body_size, length(message.body))"

# From one character beyond ASCII to the next; what is none makes the rest NULL, which ends the walk. A cast alone
# would do for SQLite, but what it makes of other bytes than UTF-8 cannot be read by Python.
_IS_UTF8 = f"""EXISTS (
    WITH RECURSIVE walk (rest) AS (
        SELECT {_after_ascii(_BODY)}
        UNION ALL
        SELECT {_after_ascii(f"substr(rest, 1 + CASE {_BYTES_OF_FIRST} END)")} FROM walk WHERE rest <> x''
    ) SELECT * FROM walk WHERE rest = x'')"""

_MESSAGES = f"""
    CREATE VIEW messages AS SELECT
        queue.vhost AS vhost, queue.name AS queue, place.number AS number,
        CAST({_part("exchange", _NAMES_START, "exchange_size")} AS TEXT) AS exchange,
        CAST({_part("routing_key", f"{_NAMES_START} + place.exchange_size + 1", "key_size")} AS TEXT) AS routing_key,
        {_SIZE} AS size,
        CASE
            WHEN instr({_BODY}, x'00') THEN NULL
            WHEN CAST({_BODY} AS TEXT) NOT GLOB '*[^ -~' || char(9, 10, 13) || ']*'
              OR {_SIZE} <= 4096 AND {_IS_UTF8} THEN CAST({_BODY} AS TEXT)
        END AS text,
        place.redelivered AS redelivered, place.deliveries AS deliveries,
        strftime('%Y-%m-%dT%H:%M:%fZ', place.expires_at / 1000.0, 'unixepoch') AS expires,
        place.expires_at AS expires_at, {_part("properties", _PROPERTIES_START, "properties_size")} AS properties,
        {_BODY} AS body
    FROM (
        SELECT queue, number, redelivered, deliveries, expires_at, NULL AS first, NULL AS start,
            NULL AS exchange_size, NULL AS key_size, NULL AS properties_size, NULL AS body_size
        FROM message_rows WHERE queue IS NOT NULL
        UNION ALL SELECT queue, number, redelivered, deliveries, expires_at, NULL, NULL, NULL, NULL, NULL, NULL
        FROM entries
        UNION ALL SELECT queue, number, redelivered, 0, NULL, first, start, exchange_size, key_size,
            properties_size, body_size
        FROM block_heads
    ) AS place
    LEFT JOIN message_rows AS message ON place.first IS NULL AND message.number = place.number
    LEFT JOIN message_blocks AS block ON block.first = place.first
    JOIN queue_rows AS queue ON queue.number = place.queue
    WHERE place.first IS NOT NULL OR message.number IS NOT NULL"""

# Not by SQLite's JSON: a tool that trusts no schema may not call that from a view before 3.42.
_QUEUES = f"""
    CREATE VIEW queues AS
    WITH marked (queue, bytes) AS (
        SELECT queue, sum(body_size) FROM block_heads WHERE first IN (SELECT first FROM block_flags) GROUP BY queue
    )
    SELECT
        vhost, name,
        CASE WHEN instr(arguments, '"x-queue-type": "quorum"') THEN 'quorum' ELSE 'classic' END AS type,
        auto_delete, arguments,
        (SELECT count(*) FROM message_rows AS message WHERE message.queue = queue.number)
            + (SELECT count(*) FROM entries WHERE entries.queue = queue.number)
            + (SELECT coalesce(sum({COUNT_WAITING}), 0)
               FROM message_blocks AS block LEFT JOIN block_flags USING (first)
               WHERE block.queue = queue.number) AS messages,
        (SELECT coalesce(sum(coalesce(message.body_size, length(message.body))), 0) FROM message_rows AS message
         WHERE message.queue = queue.number)
            + (SELECT coalesce(sum(coalesce(message.body_size, length(message.body))), 0)
               FROM entries JOIN message_rows AS message ON message.number = entries.number
               WHERE entries.queue = queue.number)
            + (SELECT coalesce(sum(bytes), 0) FROM message_blocks AS block
               WHERE block.queue = queue.number AND first NOT IN (SELECT first FROM block_flags))
            + coalesce(marked.bytes, 0) AS octets,
        number, is_paused
    FROM queue_rows AS queue LEFT JOIN marked ON marked.queue = queue.number"""

VIEWS = (_BLOCK_HEADS, _MESSAGES, _QUEUES)
