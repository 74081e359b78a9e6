-- Pages of listings as upstreams gave them: whatever `of` and `content` mean to the cache that keeps them. Seconds since 1970.
-- Nothing else depends on them, and those that were confirmed longest ago give way when there are too many.

CREATE TABLE listings (
    scope     TEXT   NOT NULL,
    name      TEXT   NOT NULL,
    of        TEXT   NOT NULL,
    content   TEXT   NOT NULL,
    size      BIGINT NOT NULL,
    confirmed BIGINT NOT NULL,
    withdrawn BIGINT,
    PRIMARY KEY (scope, name, of)
);

CREATE INDEX listings_by_age ON listings (confirmed, size);
