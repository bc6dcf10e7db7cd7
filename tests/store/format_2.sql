-- A store of format 2 as the amqpd that wrote it left it at a clean stop: one of format 1 that it had made one of its own.
-- Never to be changed: files like it are out there.

PRAGMA application_id = 1634562404;
PRAGMA user_version = 2;

CREATE TABLE "bindings" (
   "vhost" TEXT NOT NULL,
   "source" TEXT NOT NULL,
   "destination_type" TEXT NOT NULL,
   "destination" TEXT NOT NULL,
   "routing_key" TEXT NOT NULL,
   "arguments" TEXT NOT NULL,
   PRIMARY KEY ("vhost", "source", "destination_type", "destination", "routing_key", "arguments")
);
INSERT INTO "bindings" VALUES('/','e','queue','orders','a.#','{"x-match": "all"}');
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
INSERT INTO "damaged" VALUES(7,3,'','orders',X'100002',X'64616D61676564',3563932964,0,NULL,0,1800000000);
CREATE TABLE entries (
            queue INTEGER NOT NULL, number INTEGER NOT NULL, redelivered INTEGER NOT NULL DEFAULT 0,
            expires_at INTEGER, deliveries INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (queue, number)
        ) WITHOUT ROWID;
INSERT INTO "entries" VALUES(1,2,1,1900000000456,1);
INSERT INTO "entries" VALUES(1,5,0,NULL,0);
INSERT INTO "entries" VALUES(2,2,0,NULL,0);
INSERT INTO "entries" VALUES(2,5,1,NULL,0);
CREATE TABLE "exchanges" (
   "vhost" TEXT NOT NULL,
   "name" TEXT NOT NULL,
   "type" TEXT NOT NULL,
   "auto_delete" INTEGER NOT NULL,
   "internal" INTEGER NOT NULL,
   "arguments" TEXT NOT NULL,
   PRIMARY KEY ("vhost", "name")
);
INSERT INTO "exchanges" VALUES('/','e','topic',0,1,'{"alternate-exchange": "f"}');
CREATE TABLE message_rows (
            number INTEGER PRIMARY KEY NOT NULL, queue INTEGER, redelivered INTEGER NOT NULL DEFAULT 0,
            expires_at INTEGER, deliveries INTEGER NOT NULL DEFAULT 0, exchange TEXT NOT NULL,
            routing_key TEXT NOT NULL, properties BLOB NOT NULL, checksum INTEGER NOT NULL, body BLOB NOT NULL
        );
INSERT INTO "message_rows" VALUES(1,1,0,1900000000123,0,'','orders',X'100002',1019980581,X'6772C3BCC39F65');
INSERT INTO "message_rows" VALUES(2,NULL,0,NULL,0,'e','a.b',X'100002',2544108839,X'746F2074776F');
INSERT INTO "message_rows" VALUES(3,1,1,NULL,3,'','orders',X'100002',830969893,zeroblob(10000));
INSERT INTO "message_rows" VALUES(4,1,0,NULL,0,'','orders',X'90000A746578742F706C61696E02',1811612779,X'FF00');
INSERT INTO "message_rows" VALUES(5,NULL,0,NULL,0,'e','a',X'100002',804270505,X'');
INSERT INTO "message_rows" VALUES(6,3,0,NULL,0,'',CAST(x'6e756c2000' AS TEXT),X'100002',1731108729,X'6F6464');
CREATE TABLE "meta" (
   "key" TEXT PRIMARY KEY NOT NULL,
   "value" INTEGER NOT NULL
);
INSERT INTO "meta" VALUES('created',1800000000);
INSERT INTO "meta" VALUES('epoch',3);
INSERT INTO "meta" VALUES('clean',1);
INSERT INTO "meta" VALUES('synced',1);
CREATE TABLE "permissions" (
   "user" TEXT NOT NULL,
   "vhost" TEXT NOT NULL,
   "configure" TEXT NOT NULL,
   "write" TEXT NOT NULL,
   "read" TEXT NOT NULL,
   PRIMARY KEY ("user", "vhost")
);
INSERT INTO "permissions" VALUES('ann','/','.*','^a','');
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
INSERT INTO "policies" VALUES('/',0,'p','^q','{"max-length": 5}',3,'queues');
INSERT INTO "policies" VALUES('/',1,'p','','{"max-length": 9}',0,'all');
CREATE TABLE "queue_rows" (
   "number" INTEGER PRIMARY KEY NOT NULL,
   "vhost" TEXT NOT NULL,
   "name" TEXT NOT NULL,
   "auto_delete" INTEGER NOT NULL,
   "arguments" TEXT NOT NULL
, leased_to INTEGER NOT NULL DEFAULT 0);
INSERT INTO "queue_rows" VALUES(1,'/','orders',0,'{"x-max-length": 5, "x-queue-type": "quorum"}',0);
INSERT INTO "queue_rows" VALUES(2,'/','copies',1,'{}',0);
INSERT INTO "queue_rows" VALUES(3,CAST(x'6e756c2000' AS TEXT),CAST(x'c39c2000' AS TEXT),0,'{"octets": {"$type": "longstr", "value": "ff"}, "time": {"$type": "timestamp", "value": 9223372036854775808}}',0);
CREATE TABLE "users" (
   "name" TEXT PRIMARY KEY NOT NULL,
   "password_hash" TEXT NOT NULL,
   "hashing_algorithm" TEXT NOT NULL,
   "tags" TEXT NOT NULL
);
INSERT INTO "users" VALUES('ann','hash','scrypt','["administrator"]');
CREATE TABLE "vhosts" (
   "name" TEXT PRIMARY KEY NOT NULL,
   "description" TEXT NOT NULL,
   "tags" TEXT NOT NULL
);
INSERT INTO "vhosts" VALUES('/','the default','["x"]');
INSERT INTO "vhosts" VALUES(CAST(x'6e756c2000' AS TEXT),'','[]');
CREATE INDEX entries_of_message ON entries (number);
CREATE UNIQUE INDEX queue_rows_by_name ON queue_rows (vhost, name);
CREATE INDEX message_rows_of_queue ON message_rows (queue) WHERE queue IS NOT NULL;
CREATE VIEW messages AS SELECT
        queue.vhost AS vhost, queue.name AS queue, place.number AS number,
        message.exchange AS exchange, message.routing_key AS routing_key, length(message.body) AS size,
        CASE
            WHEN instr(message.body, x'00') THEN NULL
            WHEN CAST(message.body AS TEXT) NOT GLOB '*[^ -~' || char(9, 10, 13) || ']*'
              OR length(message.body) <= 4096 AND EXISTS (
    WITH RECURSIVE walk (rest) AS (
        SELECT CAST(ltrim(CAST(message.body AS TEXT), char(9, 10, 13) || ' !"#$%&''()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefghijklmnopqrstuvwxyz{|}~') AS BLOB)
        UNION ALL
        SELECT CAST(ltrim(CAST(substr(rest, 1 + CASE WHEN hex(substr(rest, 1, 4)) GLOB 'C[2-9A-F][89AB]*' THEN 2 WHEN hex(substr(rest, 1, 4)) GLOB 'D?[89AB]*' THEN 2 WHEN hex(substr(rest, 1, 4)) GLOB 'E0[AB]?[89AB]*' THEN 3 WHEN hex(substr(rest, 1, 4)) GLOB 'E[1-9ABCEF][89AB]?[89AB]*' THEN 3 WHEN hex(substr(rest, 1, 4)) GLOB 'ED[89]?[89AB]*' THEN 3 WHEN hex(substr(rest, 1, 4)) GLOB 'F0[9AB]?[89AB]?[89AB]?' THEN 4 WHEN hex(substr(rest, 1, 4)) GLOB 'F[123][89AB]?[89AB]?[89AB]?' THEN 4 WHEN hex(substr(rest, 1, 4)) GLOB 'F48?[89AB]?[89AB]?' THEN 4 END) AS TEXT), char(9, 10, 13) || ' !"#$%&''()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefghijklmnopqrstuvwxyz{|}~') AS BLOB) FROM walk WHERE rest <> x''
    ) SELECT * FROM walk WHERE rest = x'') THEN CAST(message.body AS TEXT)
        END AS text,
        place.redelivered AS redelivered, place.deliveries AS deliveries,
        strftime('%Y-%m-%dT%H:%M:%fZ', place.expires_at / 1000.0, 'unixepoch') AS expires,
        place.expires_at AS expires_at, message.properties AS properties, message.body AS body
    FROM (
        SELECT queue, number, redelivered, deliveries, expires_at FROM message_rows WHERE queue IS NOT NULL
        UNION ALL SELECT queue, number, redelivered, deliveries, expires_at FROM entries
    ) AS place
    JOIN message_rows AS message ON message.number = place.number
    JOIN queue_rows AS queue ON queue.number = place.queue;
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
    FROM queue_rows AS queue;
