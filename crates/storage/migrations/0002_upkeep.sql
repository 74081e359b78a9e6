-- What upkeep needs to know: which contents there are, what needs them and when they were used last, what a manifest names,
-- and sums. Times are seconds since 1970; 0 is "before this schema", for which `totals.since` stands in.

ALTER TABLE tags ADD COLUMN pushed BIGINT;

-- One row per file in `blobs/` that a repository names or named. `links` and `manifests` count the rows that name it, in all
-- scopes; the triggers below keep them. A row that nothing counts on is removed by a collection, and then its file.
CREATE TABLE contents (
    digest    TEXT   NOT NULL PRIMARY KEY,
    size      BIGINT NOT NULL,
    placed    BIGINT NOT NULL DEFAULT 0,
    used      BIGINT NOT NULL DEFAULT 0,
    links     BIGINT NOT NULL DEFAULT 0,
    manifests BIGINT NOT NULL DEFAULT 0,
    listed    BIGINT NOT NULL DEFAULT 0
) WITHOUT ROWID;

INSERT INTO contents (digest, size, links, manifests)
SELECT digest, MAX(size), SUM(linked), SUM(named)
FROM (SELECT digest, size, 1 AS linked, 0 AS named FROM links
      UNION ALL
      SELECT digest, size, 0, 1 FROM manifests) AS rows
GROUP BY digest;

CREATE INDEX contents_unneeded ON contents (digest, size) WHERE links = 0 AND manifests = 0;
CREATE INDEX contents_by_use ON contents (used, digest) WHERE manifests > 0;
CREATE INDEX contents_unlisted ON contents (digest) WHERE manifests > 0 AND listed = 0;
CREATE INDEX manifests_by_digest ON manifests (digest);

-- What a manifest names: its blobs and children, whatever the repository. Complete once `contents.listed` is 1.
CREATE TABLE edges (
    manifest TEXT NOT NULL,
    digest   TEXT NOT NULL,
    PRIMARY KEY (manifest, digest),
    FOREIGN KEY (manifest) REFERENCES contents (digest) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE INDEX edges_by_digest ON edges (digest, manifest);

-- One row. `since` is when this schema was first opened.
CREATE TABLE totals (
    id           BIGINT NOT NULL PRIMARY KEY,
    since        BIGINT NOT NULL,
    repositories BIGINT NOT NULL,
    tags         BIGINT NOT NULL,
    manifests    BIGINT NOT NULL,
    links        BIGINT NOT NULL,
    bytes_linked BIGINT NOT NULL,
    contents     BIGINT NOT NULL,
    bytes        BIGINT NOT NULL
) WITHOUT ROWID;

INSERT INTO totals (id, since, repositories, tags, manifests, links, bytes_linked, contents, bytes)
SELECT 1, 0,
       (SELECT COUNT(*) FROM repositories),
       (SELECT COUNT(*) FROM tags),
       (SELECT COUNT(*) FROM manifests),
       (SELECT COUNT(*) FROM links),
       (SELECT COALESCE(SUM(size), 0) FROM links),
       (SELECT COUNT(*) FROM contents),
       (SELECT COALESCE(SUM(size), 0) FROM contents);

CREATE TRIGGER repositories_added AFTER INSERT ON repositories BEGIN
    UPDATE totals SET repositories = repositories + 1 WHERE id = 1;
END;

CREATE TRIGGER repositories_removed AFTER DELETE ON repositories BEGIN
    UPDATE totals SET repositories = repositories - 1 WHERE id = 1;
END;

CREATE TRIGGER tags_added AFTER INSERT ON tags BEGIN
    UPDATE totals SET tags = tags + 1 WHERE id = 1;
END;

CREATE TRIGGER tags_removed AFTER DELETE ON tags BEGIN
    UPDATE totals SET tags = tags - 1 WHERE id = 1;
END;

CREATE TRIGGER links_added AFTER INSERT ON links BEGIN
    INSERT INTO contents (digest, size, links) VALUES (NEW.digest, NEW.size, 1)
    ON CONFLICT (digest) DO UPDATE SET links = links + 1, size = excluded.size;
    UPDATE totals SET links = links + 1, bytes_linked = bytes_linked + NEW.size WHERE id = 1;
END;

CREATE TRIGGER links_resized AFTER UPDATE OF size ON links WHEN NEW.size <> OLD.size BEGIN
    UPDATE contents SET size = NEW.size WHERE digest = NEW.digest;
    UPDATE totals SET bytes_linked = bytes_linked + NEW.size - OLD.size WHERE id = 1;
END;

CREATE TRIGGER links_removed AFTER DELETE ON links BEGIN
    UPDATE contents SET links = links - 1 WHERE digest = OLD.digest;
    UPDATE totals SET links = links - 1, bytes_linked = bytes_linked - OLD.size WHERE id = 1;
END;

CREATE TRIGGER manifests_added AFTER INSERT ON manifests BEGIN
    INSERT INTO contents (digest, size, manifests) VALUES (NEW.digest, NEW.size, 1)
    ON CONFLICT (digest) DO UPDATE SET manifests = manifests + 1, size = excluded.size;
    UPDATE totals SET manifests = manifests + 1 WHERE id = 1;
END;

CREATE TRIGGER manifests_resized AFTER UPDATE OF size ON manifests WHEN NEW.size <> OLD.size BEGIN
    UPDATE contents SET size = NEW.size WHERE digest = NEW.digest;
END;

CREATE TRIGGER manifests_removed AFTER DELETE ON manifests BEGIN
    UPDATE contents SET manifests = manifests - 1 WHERE digest = OLD.digest;
    UPDATE totals SET manifests = manifests - 1 WHERE id = 1;
END;

CREATE TRIGGER contents_added AFTER INSERT ON contents BEGIN
    UPDATE totals SET contents = contents + 1, bytes = bytes + NEW.size WHERE id = 1;
END;

CREATE TRIGGER contents_resized AFTER UPDATE OF size ON contents WHEN NEW.size <> OLD.size BEGIN
    UPDATE totals SET bytes = bytes + NEW.size - OLD.size WHERE id = 1;
END;

CREATE TRIGGER contents_removed AFTER DELETE ON contents BEGIN
    UPDATE totals SET contents = contents - 1, bytes = bytes - OLD.size WHERE id = 1;
END;
