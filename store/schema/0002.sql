-- Version 2: what the past is rebuilt from, besides probes and checkpoints.

ALTER TABLE probe ADD COLUMN late_us INTEGER; -- from the verdict until it was taken into the ranking; NULL: not known

CREATE TABLE input (            -- what else changed decisions, kept as long as probes are
    id    INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    at_us INTEGER NOT NULL,     -- the microseconds to add to at_ms, 0 to 999
    kind  TEXT NOT NULL,        -- checkpoint (its names are in the table checkpoint), address override config reply own clock stop
    data  TEXT NOT NULL         -- JSON
);
CREATE INDEX input_at ON input (at_ms);
