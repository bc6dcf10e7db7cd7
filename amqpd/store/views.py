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
"""

from __future__ import annotations

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

# From one character beyond ASCII to the next; what is none makes the rest NULL, which ends the walk. A cast alone
# would do for SQLite, but what it makes of other octets than UTF-8 cannot be read by Python.
_IS_UTF8 = f"""EXISTS (
    WITH RECURSIVE walk (rest) AS (
        SELECT {_after_ascii("message.body")}
        UNION ALL
        SELECT {_after_ascii(f"substr(rest, 1 + CASE {_OCTETS_OF_FIRST} END)")} FROM walk WHERE rest <> x''
    ) SELECT * FROM walk WHERE rest = x'')"""

_MESSAGES = f"""
    CREATE VIEW messages AS SELECT
        queue.vhost AS vhost, queue.name AS queue, place.number AS number,
        message.exchange AS exchange, message.routing_key AS routing_key, length(message.body) AS size,
        CASE
            WHEN instr(message.body, x'00') THEN NULL
            WHEN CAST(message.body AS TEXT) NOT GLOB '*[^ -~' || char(9, 10, 13) || ']*'
              OR length(message.body) <= 4096 AND {_IS_UTF8} THEN CAST(message.body AS TEXT)
        END AS text,
        place.redelivered AS redelivered, place.deliveries AS deliveries,
        strftime('%Y-%m-%dT%H:%M:%fZ', place.expires_at / 1000.0, 'unixepoch') AS expires,
        place.expires_at AS expires_at, message.properties AS properties, message.body AS body
    FROM (
        SELECT queue, number, redelivered, deliveries, expires_at FROM message_rows WHERE queue IS NOT NULL
        UNION ALL SELECT queue, number, redelivered, deliveries, expires_at FROM entries
    ) AS place
    JOIN message_rows AS message ON message.number = place.number
    JOIN queue_rows AS queue ON queue.number = place.queue"""

# Not by SQLite's JSON: a tool that trusts no schema may not call that from a view before 3.42.
_QUEUES = """
    CREATE VIEW queues AS SELECT
        vhost, name,
        CASE WHEN instr(arguments, '"x-queue-type": "quorum"') THEN 'quorum' ELSE 'classic' END AS type,
        auto_delete, arguments,
        (SELECT count(*) FROM message_rows AS message WHERE message.queue = queue.number)
            + (SELECT count(*) FROM entries WHERE entries.queue = queue.number) AS messages,
        (SELECT coalesce(sum(length(message.body)), 0) FROM message_rows AS message
         WHERE message.queue = queue.number)
            + (SELECT coalesce(sum(length(message.body)), 0)
               FROM entries JOIN message_rows AS message ON message.number = entries.number
               WHERE entries.queue = queue.number) AS octets,
        number
    FROM queue_rows AS queue"""

VIEWS = (_MESSAGES, _QUEUES)
