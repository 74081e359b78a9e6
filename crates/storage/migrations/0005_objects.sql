-- Content in a bucket. A row says that the object of this digest is whole; what has a file and no row is still to be uploaded.
-- `stored` is when it was found there, in seconds since 1970.

CREATE TABLE objects (
    digest TEXT   NOT NULL PRIMARY KEY,
    size   BIGINT NOT NULL,
    stored BIGINT NOT NULL
) WITHOUT ROWID;

-- At most one row: the bucket of this catalog, and how the catalog shows itself there. `listed` is 1 once everything that was
-- in the bucket before is in `objects`.
CREATE TABLE bucket (
    id       BIGINT NOT NULL PRIMARY KEY,
    owner    TEXT   NOT NULL,
    location TEXT   NOT NULL,
    listed   BIGINT NOT NULL DEFAULT 0
) WITHOUT ROWID;
