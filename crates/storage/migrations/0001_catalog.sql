-- The catalog: what is visible where. The bytes are files; a row here is what makes them count.
-- A repository is (scope, name); scope is a JSON array, see `Key`. Texts compare byte by byte.

CREATE TABLE repositories (
    scope TEXT NOT NULL,
    name  TEXT NOT NULL,
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;

CREATE TABLE links (
    scope  TEXT   NOT NULL,
    name   TEXT   NOT NULL,
    digest TEXT   NOT NULL,
    size   BIGINT NOT NULL,
    PRIMARY KEY (scope, name, digest),
    FOREIGN KEY (scope, name) REFERENCES repositories (scope, name)
) WITHOUT ROWID;

CREATE INDEX links_by_digest ON links (scope, digest);

CREATE TABLE manifests (
    scope         TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    digest        TEXT   NOT NULL,
    media_type    TEXT   NOT NULL,
    size          BIGINT NOT NULL,
    subject       TEXT,
    artifact_type TEXT,
    annotations   TEXT,
    PRIMARY KEY (scope, name, digest),
    FOREIGN KEY (scope, name) REFERENCES repositories (scope, name)
) WITHOUT ROWID;

CREATE INDEX manifests_by_subject ON manifests (scope, name, subject, digest) WHERE subject IS NOT NULL;

CREATE TABLE tags (
    scope  TEXT NOT NULL,
    name   TEXT NOT NULL,
    tag    TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (scope, name, tag),
    FOREIGN KEY (scope, name, digest) REFERENCES manifests (scope, name, digest) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE INDEX tags_by_digest ON tags (scope, name, digest);

-- An upload may begin in a repository that does not exist yet, and does not make it exist.
CREATE TABLE uploads (
    id    TEXT NOT NULL PRIMARY KEY,
    scope TEXT NOT NULL,
    name  TEXT NOT NULL
) WITHOUT ROWID;
