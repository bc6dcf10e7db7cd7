-- A store of format 1 as the amqpd that wrote it left it at a clean stop: its tables, and a row of every kind.
-- Never to be changed: files like it are out there.

PRAGMA application_id = 1634562404;
PRAGMA user_version = 1;

CREATE TABLE "meta" (
   "key" TEXT PRIMARY KEY NOT NULL,
   "value" INTEGER NOT NULL
);
CREATE TABLE "vhosts" (
   "name" TEXT PRIMARY KEY NOT NULL,
   "description" TEXT NOT NULL,
   "tags" TEXT NOT NULL
);
CREATE TABLE "users" (
   "name" TEXT PRIMARY KEY NOT NULL,
   "password_hash" TEXT NOT NULL,
   "hashing_algorithm" TEXT NOT NULL,
   "tags" TEXT NOT NULL
);
CREATE TABLE "permissions" (
   "user" TEXT NOT NULL,
   "vhost" TEXT NOT NULL,
   "configure" TEXT NOT NULL,
   "write" TEXT NOT NULL,
   "read" TEXT NOT NULL,
   PRIMARY KEY ("user", "vhost")
);
CREATE TABLE "policies" (
   "vhost" TEXT NOT NULL,
   "is_operator" INTEGER NOT NULL,
   "name" TEXT NOT NULL,
   "pattern" TEXT NOT NULL,
   "definition" TEXT NOT NULL,
   "priority" INTEGER NOT NULL,
   "apply_to" TEXT NOT NULL,
   PRIMARY KEY ("vhost", "is_operator", "name")
);
CREATE TABLE "exchanges" (
   "vhost" TEXT NOT NULL,
   "name" TEXT NOT NULL,
   "type" TEXT NOT NULL,
   "auto_delete" INTEGER NOT NULL,
   "internal" INTEGER NOT NULL,
   "arguments" TEXT NOT NULL,
   PRIMARY KEY ("vhost", "name")
);
CREATE TABLE "queues" (
   "number" INTEGER PRIMARY KEY NOT NULL,
   "vhost" TEXT NOT NULL,
   "name" TEXT NOT NULL,
   "auto_delete" INTEGER NOT NULL,
   "arguments" TEXT NOT NULL
);
CREATE UNIQUE INDEX "idx_queues_vhost_name"
    ON "queues" ("vhost", "name");
CREATE TABLE "bindings" (
   "vhost" TEXT NOT NULL,
   "source" TEXT NOT NULL,
   "destination_type" TEXT NOT NULL,
   "destination" TEXT NOT NULL,
   "routing_key" TEXT NOT NULL,
   "arguments" TEXT NOT NULL,
   PRIMARY KEY ("vhost", "source", "destination_type", "destination", "routing_key", "arguments")
);
CREATE TABLE "messages" (
   "number" INTEGER PRIMARY KEY NOT NULL,
   "queue" INTEGER,
   "exchange" TEXT NOT NULL,
   "routing_key" TEXT NOT NULL,
   "properties" BLOB NOT NULL,
   "body" BLOB NOT NULL,
   "checksum" INTEGER NOT NULL,
   "redelivered" INTEGER NOT NULL DEFAULT 0,
   "expires_at" INTEGER,
   "deliveries" INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX messages_of_queue ON messages (queue) WHERE queue IS NOT NULL;
CREATE TABLE entries (
            queue INTEGER NOT NULL, number INTEGER NOT NULL, redelivered INTEGER NOT NULL DEFAULT 0,
            expires_at INTEGER, deliveries INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (queue, number)
        ) WITHOUT ROWID;
CREATE INDEX entries_of_message ON entries (number);
CREATE TABLE "damaged" (
   "number" INTEGER PRIMARY KEY,
   "queue" INTEGER,
   "exchange" TEXT,
   "routing_key" TEXT,
   "properties" BLOB,
   "body" BLOB,
   "checksum" INTEGER,
   "redelivered" INTEGER,
   "expires_at" INTEGER,
   "deliveries" INTEGER,
   "noticed" INTEGER
);

INSERT INTO meta VALUES ('epoch', 2);
INSERT INTO meta VALUES ('clean', 1);
INSERT INTO meta VALUES ('created', 1800000000);

INSERT INTO vhosts VALUES ('/', 'the default', '["x"]');
INSERT INTO vhosts VALUES (CAST(x'6e756c2000' AS TEXT), '', '[]');

INSERT INTO users VALUES ('ann', 'hash', 'scrypt', '["administrator"]');

INSERT INTO permissions VALUES ('ann', '/', '.*', '^a', '');

INSERT INTO policies VALUES ('/', 0, 'p', '^q', '{"max-length": 5}', 3, 'queues');
INSERT INTO policies VALUES ('/', 1, 'p', '', '{"max-length": 9}', 0, 'all');

INSERT INTO exchanges VALUES ('/', 'e', 'topic', 0, 1, '{"alternate-exchange": "f"}');

INSERT INTO queues VALUES (1, '/', 'orders', 0, '{"x-max-length": 5, "x-queue-type": "quorum"}');
INSERT INTO queues VALUES (2, '/', 'copies', 1, '{}');
INSERT INTO queues VALUES (3, CAST(x'6e756c2000' AS TEXT), CAST(x'c39c2000' AS TEXT), 0, '{"octets": {"$type": "longstr", "value": "ff"}, "time": {"$type": "timestamp", "value": 9223372036854775808}}');

INSERT INTO bindings VALUES ('/', 'e', 'queue', 'orders', 'a.#', '{"x-match": "all"}');

INSERT INTO messages VALUES (1, 1, '', 'orders', x'100002', x'6772c3bcc39f65', 1019980581, 0, 1900000000123, 0);
INSERT INTO messages VALUES (2, NULL, 'e', 'a.b', x'100002', x'746f2074776f', 2544108839, 0, NULL, 0);
INSERT INTO messages VALUES (3, 1, '', 'orders', x'100002', zeroblob(10000), 830969893, 1, NULL, 3);
INSERT INTO messages VALUES (4, 1, '', 'orders', x'90000a746578742f706c61696e02', x'ff00', 1811612779, 0, NULL, 0);
INSERT INTO messages VALUES (5, NULL, 'e', 'a', x'100002', x'', 804270505, 0, NULL, 0);
INSERT INTO messages VALUES (6, 3, '', CAST(x'6e756c2000' AS TEXT), x'100002', x'6f6464', 1731108729, 0, NULL, 0);

INSERT INTO entries VALUES (1, 2, 1, 1900000000456, 1);
INSERT INTO entries VALUES (1, 5, 0, NULL, 0);
INSERT INTO entries VALUES (2, 2, 0, NULL, 0);
INSERT INTO entries VALUES (2, 5, 1, NULL, 0);

INSERT INTO damaged VALUES (7, 3, '', 'orders', x'100002', x'64616d61676564', 3563932964, 0, NULL, 0, 1800000000);
