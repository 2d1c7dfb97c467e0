-- Version 1 of the tables, as pg_dump wrote them, in the schema ldkjit_dump.
CREATE SCHEMA ldkjit_dump;
CREATE TABLE ldkjit_dump.head (
    one boolean DEFAULT true NOT NULL,
    version integer NOT NULL,
    epoch bigint NOT NULL,
    seq bigint NOT NULL,
    CONSTRAINT head_one_check CHECK (one)
);
CREATE TABLE ldkjit_dump.history (
    kind text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    value bytea NOT NULL
);
CREATE TABLE ldkjit_dump.kv (
    kind text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    value bytea NOT NULL
);
ALTER TABLE ONLY ldkjit_dump.kv ALTER COLUMN value SET STORAGE EXTERNAL;
INSERT INTO ldkjit_dump.head VALUES (true, 1, 1, 2);
INSERT INTO ldkjit_dump.history VALUES ('event', 1, 'x', '\x006531');
INSERT INTO ldkjit_dump.history VALUES ('event', 2, '', '\x');
INSERT INTO ldkjit_dump.kv VALUES ('archive/k', 'z', '\x6f6c64');
INSERT INTO ldkjit_dump.kv VALUES ('k', 'a''🦀', '\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff');
ALTER TABLE ONLY ldkjit_dump.head
    ADD CONSTRAINT head_pkey PRIMARY KEY (one);
ALTER TABLE ONLY ldkjit_dump.history
    ADD CONSTRAINT history_pkey PRIMARY KEY (kind, seq);
ALTER TABLE ONLY ldkjit_dump.kv
    ADD CONSTRAINT kv_pkey PRIMARY KEY (kind, key);
CREATE INDEX history_by_key ON ldkjit_dump.history USING btree (kind, key, seq);
