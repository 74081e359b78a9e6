-- What a pull-through cache knows of a tag: when its upstream last confirmed it, and since when it refuses to. Seconds since 1970.
-- A tag that was pushed has neither.

ALTER TABLE tags ADD COLUMN confirmed BIGINT;

ALTER TABLE tags ADD COLUMN withdrawn BIGINT;
