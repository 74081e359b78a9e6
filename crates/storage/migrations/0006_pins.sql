-- What is never evicted. `reference` is a tag or a digest, which a colon tells apart; what it means need not be here yet.

CREATE TABLE pins (
    scope     TEXT   NOT NULL,
    name      TEXT   NOT NULL,
    reference TEXT   NOT NULL,
    since     BIGINT NOT NULL,
    PRIMARY KEY (scope, name, reference)
) WITHOUT ROWID;
