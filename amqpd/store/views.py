"""What a store shows to any SQLite tool: two views, which are for others to rely on. The tables are ours to change.

They are in every store, so in every backup. `messages` has a row for each message in each queue:

- `vhost`, `queue`, `number`: where it is; numbers rise in publish order, and are the same in all its queues;
- `exchange`, `routing_key`: what it was published with;
- `size`, `text`: the octets of its body, and the body as text, where it is: without control characters, ASCII of
  any length or UTF-8 up to 4 KiB; else NULL;
- `redelivered`: 1 if it has been with somebody, as far as the last clean stop knew;
- `deliveries`: how many there were when it was last put back;
- `expires`, `expires_at`: its end as text, in UTC, and in milliseconds since 1970, or NULL;
- `properties`, `body`: octets; properties are flags and values as in a content header (Spec: §4.2.6.1).

`queues` has a row for each durable queue: `vhost`, `name`, `type`, `auto_delete`, `arguments` as JSON, `messages`,
how many there are, `octets`, those of their bodies, and `number`, which tells it from an earlier one of its name.

They stand on a third, `run_heads`, which takes runs apart, and is ours to change too.
"""

from __future__ import annotations

from amqpd.message import BODY_OFFSET_IN_HEADER_FRAME
from amqpd.store.run_rows import HEAD

# All of ASCII that is text, but for tab, line feed and carriage return.
_ASCII = "' !\"#$%&''()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~'"


def _after_ascii(octets: str) -> str:
    return f"CAST(ltrim(CAST({octets} AS TEXT), char(9, 10, 13) || {_ASCII}) AS BLOB)"


# The characters beyond ASCII, in hexadecimal digits, by how many octets they have (RFC 3629 §4).
_CHARACTERS = {
    2: ("C[2-9A-F][89AB]*", "D?[89AB]*"),
    3: ("E0[AB]?[89AB]*", "E[1-9ABCEF][89AB]?[89AB]*", "ED[89]?[89AB]*"),
    4: ("F0[9AB]?[89AB]?[89AB]?", "F[123][89AB]?[89AB]?[89AB]?", "F48?[89AB]?[89AB]?"),
}
_OCTETS_OF_FIRST = " ".join([
    f"WHEN hex(substr(rest, 1, 4)) GLOB '{pattern}' THEN {octets}"
    for octets, patterns in _CHARACTERS.items() for pattern in patterns])


def _is_utf8(body: str) -> str:
    """From one character beyond ASCII to the next; what is none makes the rest NULL, which ends the walk.

    A cast alone would do for SQLite, but what it makes of other octets than UTF-8 cannot be read by Python.
    """
    return f"""EXISTS (
        WITH RECURSIVE walk (rest) AS (
            SELECT {_after_ascii(body)}
            UNION ALL
            SELECT {_after_ascii(f"substr(rest, 1 + CASE {_OCTETS_OF_FIRST} END)")} FROM walk WHERE rest <> x''
        ) SELECT * FROM walk WHERE rest = x'')"""


def _shown(places: str) -> str:
    """The query for the messages of a table, or subquery, that is called `message`."""
    return f"""
        SELECT
            queue.vhost AS vhost, queue.name AS queue, message.number AS number,
            message.exchange AS exchange, message.routing_key AS routing_key, length(message.body) AS size,
            CASE
                WHEN instr(message.body, x'00') THEN NULL
                WHEN CAST(message.body AS TEXT) NOT GLOB '*[^ -~' || char(9, 10, 13) || ']*'
                  OR length(message.body) <= 4096 AND {_is_utf8("message.body")} THEN CAST(message.body AS TEXT)
            END AS text,
            message.redelivered AS redelivered, message.deliveries AS deliveries,
            strftime('%Y-%m-%dT%H:%M:%fZ', message.expires_at / 1000.0, 'unixepoch') AS expires,
            message.expires_at AS expires_at, message.properties AS properties, message.body AS body
        FROM {places}
        JOIN queue_rows AS queue ON queue.number = message.in_queue"""


_OWN_ROWS = """(
    SELECT queue AS in_queue, number, redelivered, deliveries, expires_at, exchange, routing_key, properties, body
    FROM message_rows WHERE queue IS NOT NULL) AS message"""
_SHARED_ROWS = """(
    SELECT place.queue AS in_queue, place.number, place.redelivered, place.deliveries, place.expires_at,
        shared.exchange, shared.routing_key, shared.properties, shared.body
    FROM entries AS place JOIN message_rows AS shared ON shared.number = place.number) AS message"""
_IN_RUNS = """(
    SELECT head.queue AS in_queue, head.number, head.redelivered, 0 AS deliveries, NULL AS expires_at,
        CAST(substr(contents, head.start + 2, head.exchange_size) AS TEXT) AS exchange,
        CAST(substr(contents, head.start + 3 + head.exchange_size, head.key_size) AS TEXT) AS routing_key,
        substr(contents, head.properties_start, head.properties_size) AS properties,
        substr(contents, head.properties_start + head.properties_size + 8, head.body_size) AS body
    FROM run_heads AS head JOIN run_rows USING (first)) AS message"""


def _number(octets: str, at: int, size: int) -> str:
    """The number in big-endian octets, which are given as hexadecimal digits; `at` and `size` are in octets."""
    digits = range(2 * at + 1, 2 * (at + size) + 1)
    return "(" + " + ".join([
        f"(instr('0123456789ABCDEF', substr({octets}, {digit}, 1)) - 1) * {16 ** (digits[-1] - digit)}"
        for digit in digits]) + ")"


# What `run_rows.py` says of heads and marks. There is no function that reads a number of octets.
_RUN_HEADS = f"""
    CREATE VIEW run_heads AS
    WITH RECURSIVE place (first, at) AS (
        SELECT first, 1 FROM run_rows
        UNION ALL SELECT first, at + {HEAD.size} FROM place JOIN run_rows USING (first)
        WHERE at + {2 * HEAD.size - 1} <= length(heads)
    ), digits (first, queue, marks, head) AS (
        SELECT first, queue, marks, hex(substr(heads, at, {HEAD.size}))
        FROM place JOIN run_rows USING (first) LEFT JOIN run_marks USING (first)
    ), head (first, queue, mark, number, start, exchange_size, key_size, properties_size, body_size) AS (
        SELECT first, queue, CASE WHEN marks IS NULL THEN '+' ELSE substr(CAST(marks AS TEXT),
            1 + {_number("head", 0, 2)}, 1) END, first + {_number("head", 0, 2)}, {_number("head", 2, 4)},
            {_number("head", 6, 1)}, {_number("head", 7, 1)}, {_number("head", 8, 2)}, {_number("head", 10, 4)}
        FROM digits
    ) SELECT
        first, queue, number, mark = 'R' AS redelivered, start, exchange_size, key_size,
        start + exchange_size + key_size + {2 + BODY_OFFSET_IN_HEADER_FRAME + 1} AS properties_start, properties_size,
        body_size
    FROM head WHERE mark NOT IN ('-', '')"""

_MESSAGES = "CREATE VIEW messages AS" + " UNION ALL ".join(map(_shown, (_OWN_ROWS, _SHARED_ROWS, _IN_RUNS)))

# Not by SQLite's JSON: a tool that trusts no schema may not call that from a view before 3.42.
_QUEUES = """
    CREATE VIEW queues AS SELECT
        vhost, name,
        CASE WHEN instr(arguments, '"x-queue-type": "quorum"') THEN 'quorum' ELSE 'classic' END AS type,
        auto_delete, arguments,
        (SELECT count(*) FROM message_rows AS message WHERE message.queue = queue.number)
            + (SELECT count(*) FROM entries WHERE entries.queue = queue.number)
            + (SELECT coalesce(sum(
                   CASE WHEN marks IS NULL THEN count ELSE length(replace(marks, '-', '')) END), 0)
               FROM run_rows AS run LEFT JOIN run_marks USING (first) WHERE run.queue = queue.number) AS messages,
        (SELECT coalesce(sum(length(message.body)), 0) FROM message_rows AS message
         WHERE message.queue = queue.number)
            + (SELECT coalesce(sum(length(message.body)), 0)
               FROM entries JOIN message_rows AS message ON message.number = entries.number
               WHERE entries.queue = queue.number)
            + (SELECT coalesce(sum(octets), 0) FROM run_rows AS run
               WHERE run.queue = queue.number AND first NOT IN (SELECT first FROM run_marks))
            + (SELECT coalesce(sum(body_size), 0) FROM run_heads AS head
               WHERE head.queue = queue.number AND first IN (SELECT first FROM run_marks)) AS octets,
        number
    FROM queue_rows AS queue"""

VIEWS = (_RUN_HEADS, _MESSAGES, _QUEUES)
