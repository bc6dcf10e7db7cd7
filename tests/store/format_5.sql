-- A store of format 5 as the amqpd that wrote it left it at a clean stop: one of format 4 that it had made one of its own.
-- Never to be changed: files like it are out there.

PRAGMA application_id = 1634562404;
PRAGMA user_version = 5;

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
CREATE TABLE "block_flags" (first INTEGER PRIMARY KEY NOT NULL, flags BLOB NOT NULL);
INSERT INTO "block_flags" VALUES(101,X'2D2B52522B2B2B2D2B2B2B2B2B2B2B2B2B2B2B2B');
CREATE TABLE body_parts (number INTEGER PRIMARY KEY NOT NULL, data BLOB NOT NULL);
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
, body_id INTEGER, body_size INTEGER);
INSERT INTO "damaged" VALUES(7,3,'','orders',X'100002',X'64616D61676564',3563932964,0,NULL,0,1800000000,NULL,NULL);
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
CREATE TABLE global_parameters (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL);
INSERT INTO "global_parameters" VALUES('cluster_name','"x"');
CREATE TABLE "message_blocks" (
            first INTEGER PRIMARY KEY NOT NULL, last INTEGER NOT NULL, queue INTEGER NOT NULL, count INTEGER NOT NULL,
            bytes INTEGER NOT NULL, heads BLOB NOT NULL, contents BLOB NOT NULL
        );
INSERT INTO "message_blocks" VALUES(101,120,2,20,240,X'000000000000010500030000000C931DFAE5000100000033010500030000000CC0C16F77000200000066010500030000000C847DA243000300000099010500030000000C677844530004000000CC010500030000000CBDDD4BA90005000000FF010500030000000CEE01DE3B000600000132010500030000000CAABD130F000700000165010500030000000CF37B145A000800000198010500030000000CCE9C987D0009000001CB010500030000000CE44A1904000A000001FE010500030000000CA0F6D430000B00000231010500030000000CF32A41A2000C00000264010500030000000C298F4E58000D00000297010500030000000CCA8AA848000E000002CA010500030000000C8E36657C000F000002FD010500030000000CDDEAF0EE001000000330010500030000000CF5F97D32001100000363010500030000000CAC3F7A67001200000396010500030000000CE883B7530013000003C9010500030000000C2E6EA8B5',X'016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313031206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313032206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313033206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313034206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313035206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313036206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313037206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313038206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313039206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313130206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313131206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313132206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313133206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313134206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313135206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313136206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313137206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313138206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313139206F6620612072756ECE016505612E72756E0200010000000F003C0000000000000000000C100002CE0300010000000C313230206F6620612072756ECE');
CREATE TABLE message_rows (
            number INTEGER PRIMARY KEY NOT NULL, queue INTEGER, redelivered INTEGER NOT NULL DEFAULT 0,
            expires_at INTEGER, deliveries INTEGER NOT NULL DEFAULT 0, exchange TEXT NOT NULL,
            routing_key TEXT NOT NULL, properties BLOB NOT NULL, checksum INTEGER NOT NULL, body BLOB NOT NULL
        , body_id INTEGER, body_size INTEGER);
INSERT INTO "message_rows" VALUES(1,1,0,1900000000123,0,'','orders',X'100002',1019980581,X'6772C3BCC39F65',NULL,NULL);
INSERT INTO "message_rows" VALUES(2,NULL,0,NULL,0,'e','a.b',X'100002',2544108839,X'746F2074776F',NULL,NULL);
INSERT INTO "message_rows" VALUES(3,1,1,NULL,3,'','orders',X'100002',830969893,zeroblob(10000),NULL,NULL);
INSERT INTO "message_rows" VALUES(4,1,0,NULL,0,'','orders',X'90000A746578742F706C61696E02',1811612779,X'FF00',NULL,NULL);
INSERT INTO "message_rows" VALUES(5,NULL,0,NULL,0,'e','a',X'100002',804270505,X'',NULL,NULL);
INSERT INTO "message_rows" VALUES(6,3,0,NULL,0,'',CAST(x'6e756c2000' AS TEXT),X'100002',1731108729,X'6F6464',NULL,NULL);
INSERT INTO "message_rows" VALUES(200,1,0,NULL,0,'','orders',X'100002',2810108437,zeroblob(1200000),NULL,NULL);
CREATE TABLE "meta" (
   "key" TEXT PRIMARY KEY NOT NULL,
   "value" INTEGER NOT NULL
);
INSERT INTO "meta" VALUES('created',1800000000);
INSERT INTO "meta" VALUES('epoch',6);
INSERT INTO "meta" VALUES('clean',1);
INSERT INTO "meta" VALUES('synced',1);
INSERT INTO "meta" VALUES('wal_number',3);
CREATE TABLE parameters (
            vhost TEXT NOT NULL, component TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
            PRIMARY KEY (vhost, component, name)
        );
INSERT INTO "parameters" VALUES('/','vhost-limits','limits','{"max-queues": 7}');
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
, delivery_watermark INTEGER NOT NULL DEFAULT 0);
INSERT INTO "queue_rows" VALUES(1,'/','orders',0,'{"x-max-length": 5, "x-queue-type": "quorum"}',0);
INSERT INTO "queue_rows" VALUES(2,'/','copies',1,'{}',0);
INSERT INTO "queue_rows" VALUES(3,CAST(x'6e756c2000' AS TEXT),CAST(x'c39c2000' AS TEXT),0,'{"octets": {"$type": "longstr", "value": "ff"}, "time": {"$type": "timestamp", "value": 9223372036854775808}}',0);
CREATE TABLE topic_permissions (
            user TEXT NOT NULL, vhost TEXT NOT NULL, exchange TEXT NOT NULL, write TEXT NOT NULL, read TEXT NOT NULL,
            PRIMARY KEY (user, vhost, exchange)
        );
INSERT INTO "topic_permissions" VALUES('ann','/','e','^a','^b');
CREATE TABLE "users" (
   "name" TEXT PRIMARY KEY NOT NULL,
   "password_hash" TEXT NOT NULL,
   "hashing_algorithm" TEXT NOT NULL,
   "tags" TEXT NOT NULL
, scram_sha256 TEXT NOT NULL DEFAULT '', limits TEXT NOT NULL DEFAULT '{}');
INSERT INTO "users" VALUES('ann','hash','scrypt','["administrator"]','','{}');
CREATE TABLE "vhosts" (
   "name" TEXT PRIMARY KEY NOT NULL,
   "description" TEXT NOT NULL,
   "tags" TEXT NOT NULL
, default_queue_type TEXT NOT NULL DEFAULT '', protected_from_deletion INTEGER NOT NULL DEFAULT 0);
INSERT INTO "vhosts" VALUES('/','the default','["x"]','',0);
INSERT INTO "vhosts" VALUES(CAST(x'6e756c2000' AS TEXT),'','[]','',0);
CREATE INDEX entries_of_message ON entries (number);
CREATE INDEX message_blocks_of_queue ON message_blocks (queue, last, count);
CREATE INDEX message_rows_of_queue ON message_rows (queue) WHERE queue IS NOT NULL;
CREATE UNIQUE INDEX queue_rows_by_name ON queue_rows (vhost, name);
CREATE VIEW block_heads AS
    WITH RECURSIVE places (at) AS (
        SELECT 0 UNION ALL SELECT at + 1 FROM places WHERE at + 1 < (SELECT max(count) FROM message_blocks)
    ), pieces (first, queue, flags, head) AS (
        SELECT block.first, queue, flags, substr(heads, 1 + at * 18, 18)
        FROM message_blocks AS block LEFT JOIN block_flags AS mark ON mark.first = block.first
        CROSS JOIN places ON at * 18 < length(heads) LIMIT -1 OFFSET 0
    ), heads (first, queue, flags, place, start, exchange_size, key_size, properties_size, body_size) AS (
        SELECT
            first, queue, flags, ((instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 1, 1)) - 1) * 256 + (instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 2, 1)) - 1) * 1), ((instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 3, 1)) - 1) * 16777216 + (instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 4, 1)) - 1) * 65536 + (instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 5, 1)) - 1) * 256 + (instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 6, 1)) - 1) * 1), ((instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 7, 1)) - 1) * 1),
            ((instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 8, 1)) - 1) * 1), ((instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 9, 1)) - 1) * 256 + (instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 10, 1)) - 1) * 1), ((instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 11, 1)) - 1) * 16777216 + (instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 12, 1)) - 1) * 65536 + (instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 13, 1)) - 1) * 256 + (instr(x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', substr(head, 14, 1)) - 1) * 1)
        FROM pieces
    )
    SELECT
        first, queue, first + place AS number,
        coalesce(substr(flags, 1 + place, 1) = x'52', 0) AS redelivered,
        start, exchange_size, key_size, properties_size, body_size
    FROM heads WHERE flags IS NULL OR substr(flags, 1 + place, 1) NOT IN (x'2d', x'');
CREATE VIEW messages AS SELECT
        queue.vhost AS vhost, queue.name AS queue, place.number AS number,
        CAST(
        CASE WHEN place.first IS NULL THEN message.exchange
        ELSE substr(block.contents, place.start + 2, place.exchange_size) END AS TEXT) AS exchange,
        CAST(
        CASE WHEN place.first IS NULL THEN message.routing_key
        ELSE substr(block.contents, place.start + 2 + place.exchange_size + 1, place.key_size) END AS TEXT) AS routing_key,
        coalesce(place.body_size, message.body_size, length(message.body)) AS size,
        CASE
            WHEN instr(
        CASE WHEN message.body_id IS NULL
        THEN 
        CASE WHEN place.first IS NULL THEN message.body
        ELSE substr(block.contents, place.start + 3 + place.exchange_size + place.key_size + 19 + place.properties_size + 8, place.body_size) END
        ELSE (SELECT CAST(group_concat(data, '') AS BLOB) FROM (
            SELECT data FROM body_parts
            WHERE number BETWEEN message.body_id AND message.body_id + 1023 ORDER BY number)) END, x'00') THEN NULL
            WHEN CAST(
        CASE WHEN message.body_id IS NULL
        THEN 
        CASE WHEN place.first IS NULL THEN message.body
        ELSE substr(block.contents, place.start + 3 + place.exchange_size + place.key_size + 19 + place.properties_size + 8, place.body_size) END
        ELSE (SELECT CAST(group_concat(data, '') AS BLOB) FROM (
            SELECT data FROM body_parts
            WHERE number BETWEEN message.body_id AND message.body_id + 1023 ORDER BY number)) END AS TEXT) NOT GLOB '*[^ -~' || char(9, 10, 13) || ']*'
              OR coalesce(place.body_size, message.body_size, length(message.body)) <= 4096 AND EXISTS (
    WITH RECURSIVE walk (rest) AS (
        SELECT CAST(ltrim(CAST(
        CASE WHEN message.body_id IS NULL
        THEN 
        CASE WHEN place.first IS NULL THEN message.body
        ELSE substr(block.contents, place.start + 3 + place.exchange_size + place.key_size + 19 + place.properties_size + 8, place.body_size) END
        ELSE (SELECT CAST(group_concat(data, '') AS BLOB) FROM (
            SELECT data FROM body_parts
            WHERE number BETWEEN message.body_id AND message.body_id + 1023 ORDER BY number)) END AS TEXT), char(9, 10, 13) || ' !"#$%&''()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefghijklmnopqrstuvwxyz{|}~') AS BLOB)
        UNION ALL
        SELECT CAST(ltrim(CAST(substr(rest, 1 + CASE WHEN hex(substr(rest, 1, 4)) GLOB 'C[2-9A-F][89AB]*' THEN 2 WHEN hex(substr(rest, 1, 4)) GLOB 'D?[89AB]*' THEN 2 WHEN hex(substr(rest, 1, 4)) GLOB 'E0[AB]?[89AB]*' THEN 3 WHEN hex(substr(rest, 1, 4)) GLOB 'E[1-9ABCEF][89AB]?[89AB]*' THEN 3 WHEN hex(substr(rest, 1, 4)) GLOB 'ED[89]?[89AB]*' THEN 3 WHEN hex(substr(rest, 1, 4)) GLOB 'F0[9AB]?[89AB]?[89AB]?' THEN 4 WHEN hex(substr(rest, 1, 4)) GLOB 'F[123][89AB]?[89AB]?[89AB]?' THEN 4 WHEN hex(substr(rest, 1, 4)) GLOB 'F48?[89AB]?[89AB]?' THEN 4 END) AS TEXT), char(9, 10, 13) || ' !"#$%&''()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefghijklmnopqrstuvwxyz{|}~') AS BLOB) FROM walk WHERE rest <> x''
    ) SELECT * FROM walk WHERE rest = x'') THEN CAST(
        CASE WHEN message.body_id IS NULL
        THEN 
        CASE WHEN place.first IS NULL THEN message.body
        ELSE substr(block.contents, place.start + 3 + place.exchange_size + place.key_size + 19 + place.properties_size + 8, place.body_size) END
        ELSE (SELECT CAST(group_concat(data, '') AS BLOB) FROM (
            SELECT data FROM body_parts
            WHERE number BETWEEN message.body_id AND message.body_id + 1023 ORDER BY number)) END AS TEXT)
        END AS text,
        place.redelivered AS redelivered, place.deliveries AS deliveries,
        strftime('%Y-%m-%dT%H:%M:%fZ', place.expires_at / 1000.0, 'unixepoch') AS expires,
        place.expires_at AS expires_at, 
        CASE WHEN place.first IS NULL THEN message.properties
        ELSE substr(block.contents, place.start + 3 + place.exchange_size + place.key_size + 19, place.properties_size) END AS properties,
        
        CASE WHEN message.body_id IS NULL
        THEN 
        CASE WHEN place.first IS NULL THEN message.body
        ELSE substr(block.contents, place.start + 3 + place.exchange_size + place.key_size + 19 + place.properties_size + 8, place.body_size) END
        ELSE (SELECT CAST(group_concat(data, '') AS BLOB) FROM (
            SELECT data FROM body_parts
            WHERE number BETWEEN message.body_id AND message.body_id + 1023 ORDER BY number)) END AS body
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
    WHERE place.first IS NOT NULL OR message.number IS NOT NULL;
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
            + (SELECT coalesce(sum(CASE WHEN flags IS NULL THEN count ELSE length(replace(flags, '-', '')) END), 0)
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
        number
    FROM queue_rows AS queue LEFT JOIN marked ON marked.queue = queue.number;
