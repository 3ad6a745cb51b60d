-- The history of hard, a resolver that answers with the best living address.
-- Version 1. Read the views (probes, current, events, answers, uptime, rollups): their names and
-- columns are kept. The tables below them may change with any release.
-- Times are Unix milliseconds (UTC) in columns that end in _ms, durations are microseconds in
-- columns that end in _us; those of table probe count steps of 10 microseconds.
-- Any sqlite3 from 3.26 on can read this: it uses nothing that is younger.

CREATE TABLE setting (          -- single values that belong to the whole database
    key   TEXT PRIMARY KEY,     -- resolvers, and times: written stopped rolled_to hours_until probes_from (_ms)
    value NOT NULL
) WITHOUT ROWID;

CREATE TABLE endpoint (         -- one (name, candidate, address): the thing that is probed and answered
    id        INTEGER PRIMARY KEY,
    name      TEXT NOT NULL,    -- the configured name, lower case, no final dot
    candidate TEXT NOT NULL,    -- the candidate's label
    address   TEXT NOT NULL,    -- IPv4 or IPv6 address
    family    INTEGER NOT NULL, -- 4 or 6
    used_ms   INTEGER NOT NULL, -- last use, to the hour; rows unused for longer than any history go
    UNIQUE (name, candidate, address)
);

CREATE TABLE result (           -- the distinct results that an endpoint's probes had; a probe refers to one
    id       INTEGER PRIMARY KEY,
    endpoint INTEGER NOT NULL REFERENCES endpoint (id),
    outcome  TEXT NOT NULL,     -- ok timeout refused reset unreachable dns tls status body protocol aborted
    status   INTEGER NOT NULL,  -- HTTP status, exit code or DNS rcode; 0 where there is none
    try      INTEGER NOT NULL,  -- 0, or the number of the extra try inside one probe
    final    INTEGER NOT NULL,  -- 0 for a try that another one followed
    delayed  INTEGER NOT NULL,  -- 1 if our own process was late, so that the times mean nothing
    counted  INTEGER NOT NULL,  -- 1 if it counts for health, uptime and percentiles
    detail   TEXT NOT NULL,     -- one line for a person
    used_ms  INTEGER NOT NULL,  -- last use, to the hour
    UNIQUE (endpoint, outcome, status, try, final, delayed, detail)
);

CREATE TABLE probe (            -- every probe, 27 bytes each; oldest rows go first (raw_for, max_size)
    at_ms   INTEGER NOT NULL,   -- start of the probe
    result  INTEGER NOT NULL REFERENCES result (id), -- what it found, and of which endpoint
    connect INTEGER,            -- until the TCP connection stood, in steps of 10 microseconds, as all below; NULL: not reached
    wait    INTEGER,            -- from there until the first byte of the reply, TLS included; NULL: not reached
    rest    INTEGER NOT NULL,   -- from the last of these that was reached until the verdict
    late    INTEGER,            -- from the verdict until it was taken into the ranking; NULL: it was not
    PRIMARY KEY (at_ms, result)
) WITHOUT ROWID;

CREATE TABLE endpoint_state (   -- the present state of every endpoint that exists now
    endpoint     INTEGER PRIMARY KEY REFERENCES endpoint (id),
    state        TEXT NOT NULL,    -- measured: unknown healthy unhealthy
    override     TEXT NOT NULL,    -- forced: auto up down drain
    tier         INTEGER NOT NULL,
    weight       INTEGER NOT NULL,
    rank         INTEGER NOT NULL, -- 1 = best of its family; 0 = not eligible
    selected     INTEGER NOT NULL, -- 1 if it is part of today's answer
    latency_us   INTEGER,          -- the smoothed estimate that ranks it
    connect_us   INTEGER,          -- the three estimates: until connected,
    first_byte_us INTEGER,         -- until the first byte,
    total_us     INTEGER,          -- until the verdict
    last_outcome TEXT NOT NULL,
    since_ms     INTEGER,          -- in this state since
    checked_ms   INTEGER,          -- start of the last probe that counted
    fingerprint  INTEGER NOT NULL, -- of the check that measured it; state is used only for the same check
    health       TEXT              -- the rest of the measured health, JSON
);

CREATE TABLE event (            -- everything that happened
    id        INTEGER PRIMARY KEY,
    at_ms     INTEGER NOT NULL,
    name      TEXT NOT NULL,    -- '' where the event is not about a name, candidate or address
    candidate TEXT NOT NULL,
    address   TEXT NOT NULL,
    kind      TEXT NOT NULL,    -- state selected address override config guard start stop ...
    old       TEXT NOT NULL,
    new       TEXT NOT NULL,
    reason    TEXT NOT NULL,
    who       TEXT NOT NULL     -- the operator, where there was one
);
CREATE INDEX event_at ON event (at_ms);

CREATE TABLE answer (           -- every change of what a name is answered with
    id        INTEGER PRIMARY KEY,
    at_ms     INTEGER NOT NULL,
    name      TEXT NOT NULL,
    type      TEXT NOT NULL,    -- A or AAAA
    addresses TEXT NOT NULL,    -- best first, separated by a blank; '' = no address
    reason    TEXT NOT NULL,
    decision  TEXT              -- the whole decision, JSON
);
CREATE INDEX answer_at ON answer (at_ms);
CREATE INDEX answer_name ON answer (name, type, at_ms);

CREATE TABLE rollup_minute (    -- the counted probes of one endpoint in one minute, kept for 30 days
    at_ms    INTEGER NOT NULL,  -- start of the minute
    endpoint INTEGER NOT NULL REFERENCES endpoint (id),
    n        INTEGER NOT NULL,  -- probes
    ok       INTEGER NOT NULL,  -- of these with outcome ok; the times below are of these only
    min_us   INTEGER,
    p50_us   INTEGER,
    p95_us   INTEGER,
    max_us   INTEGER,
    PRIMARY KEY (at_ms, endpoint)
) WITHOUT ROWID;

CREATE TABLE rollup_hour (      -- the same by the hour, kept for rollup_for; p50 and p95 follow as the hour ends
    at_ms    INTEGER NOT NULL,
    endpoint INTEGER NOT NULL REFERENCES endpoint (id),
    n        INTEGER NOT NULL,
    ok       INTEGER NOT NULL,
    min_us   INTEGER,
    p50_us   INTEGER,
    p95_us   INTEGER,
    max_us   INTEGER,
    PRIMARY KEY (at_ms, endpoint)
) WITHOUT ROWID;

CREATE TABLE bucket (           -- the upper bounds of the histogram: 8 to each doubling, so 12 % wide at most
    upto_us INTEGER PRIMARY KEY
);
INSERT INTO bucket
    WITH RECURSIVE octave(o) AS (SELECT 0 UNION ALL SELECT o + 1 FROM octave WHERE o < 26),
                   step(s) AS (SELECT 8 UNION ALL SELECT s + 1 FROM step WHERE s < 15)
    SELECT s << o FROM octave, step UNION SELECT s - 8 FROM step;

CREATE TABLE histogram (        -- total time of ok probes by endpoint, hour and bucket, kept for a good day
    at_ms    INTEGER NOT NULL,  -- start of the hour
    endpoint INTEGER NOT NULL REFERENCES endpoint (id),
    upto_us  INTEGER NOT NULL REFERENCES bucket (upto_us),
    n        INTEGER NOT NULL,
    PRIMARY KEY (at_ms, endpoint, upto_us)
) WITHOUT ROWID;

CREATE TABLE override (         -- what operators forced, in force until until_ms
    name      TEXT NOT NULL,
    candidate TEXT NOT NULL,    -- '' = every candidate of the name
    what      TEXT NOT NULL,    -- state or weight
    value     TEXT NOT NULL,    -- up down drain; a weight like 50 or 50%
    at_ms     INTEGER NOT NULL,
    until_ms  INTEGER,          -- NULL = until it is taken back
    who       TEXT NOT NULL,
    why       TEXT NOT NULL,
    PRIMARY KEY (name, candidate, what)
) WITHOUT ROWID;

CREATE TABLE memory (           -- what the ranking of each name remembers from its last decision
    name   TEXT PRIMARY KEY,
    at_ms  INTEGER NOT NULL,
    memory TEXT NOT NULL        -- JSON
) WITHOUT ROWID;

CREATE TABLE checkpoint (       -- the ranking of a name as it was at times, to explain the past from
    at_ms  INTEGER NOT NULL,
    name   TEXT NOT NULL,
    memory TEXT NOT NULL,       -- JSON
    PRIMARY KEY (at_ms, name)
) WITHOUT ROWID;

CREATE TABLE known_address (    -- the last known addresses of candidates that are host names
    name      TEXT NOT NULL,
    candidate TEXT NOT NULL,
    addresses TEXT NOT NULL,    -- separated by a blank
    at_ms     INTEGER NOT NULL,
    PRIMARY KEY (name, candidate)
) WITHOUT ROWID;

CREATE TABLE config (           -- the versions of the configuration and since when each was in force
    id    INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    hash  TEXT NOT NULL,
    text  TEXT NOT NULL         -- '' where an earlier row with the same hash has it
);
CREATE INDEX config_hash ON config (hash);

CREATE TABLE input (            -- what else decisions depended on; with probe, checkpoint and config the past
    id    INTEGER PRIMARY KEY,  -- is rebuilt from it. Kept as long as probes are
    at_ms INTEGER NOT NULL,
    at_us INTEGER NOT NULL,     -- the microseconds to add to at_ms, 0 to 999
    kind  TEXT NOT NULL,        -- checkpoint (its names are in the table checkpoint) address override config reply own clock stop
    data  TEXT NOT NULL         -- JSON
);
CREATE INDEX input_at ON input (at_ms);

CREATE VIEW probes AS           -- every probe; filter by at_ms
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', p.at_ms / 1000.0, 'unixepoch') AS time,
       e.name AS name, e.candidate AS candidate, e.address AS address,
       r.outcome AS outcome, r.status AS status,
       p.connect / 100.0 AS connect_ms,
       (ifnull(p.connect, 0) + p.wait) / 100.0 AS first_byte_ms,
       (ifnull(p.connect, 0) + ifnull(p.wait, 0) + p.rest) / 100.0 AS total_ms,
       r.detail AS detail, p.at_ms AS at_ms
  FROM probe p JOIN result r ON r.id = p.result JOIN endpoint e ON e.id = r.endpoint;

CREATE VIEW current AS          -- every endpoint as it is now
SELECT e.name AS name, e.candidate AS candidate, e.address AS address,
       CASE e.family WHEN 6 THEN 'AAAA' ELSE 'A' END AS family,
       s.state AS state, s.override AS override, s.tier AS tier, s.weight AS weight, s.rank AS rank,
       s.selected AS selected, s.latency_us / 1000.0 AS latency_ms, s.last_outcome AS last_outcome,
       strftime('%Y-%m-%dT%H:%M:%fZ', s.since_ms / 1000.0, 'unixepoch') AS since,
       strftime('%Y-%m-%dT%H:%M:%fZ', s.checked_ms / 1000.0, 'unixepoch') AS checked
  FROM endpoint_state s JOIN endpoint e ON e.id = s.endpoint;

CREATE VIEW events AS           -- everything that happened; filter by at_ms
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', at_ms / 1000.0, 'unixepoch') AS time,
       name, candidate, address, kind, old, new, reason, at_ms
  FROM event;

CREATE VIEW answers AS          -- one row per change of an answer; filter by at_ms
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', at_ms / 1000.0, 'unixepoch') AS time,
       name, type, addresses, reason, at_ms
  FROM answer;

CREATE VIEW uptime AS           -- the last 24 hours of every endpoint; percentiles of ok probes, 12 % too high at most
WITH span(since_ms, tail_ms) AS (
         SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000 - 86400000,
                ifnull((SELECT value FROM setting WHERE key = 'rolled_to_ms'), 0)),
     tail(endpoint, ok, total_us) AS ( -- the last minutes, not rolled up yet
         SELECT r.endpoint, r.outcome = 'ok', (ifnull(p.connect, 0) + ifnull(p.wait, 0) + p.rest) * 10
           FROM probe p JOIN result r ON r.id = p.result
          WHERE p.at_ms >= (SELECT max(since_ms, tail_ms) FROM span) AND r.counted = 1),
     counts(endpoint, n, ok) AS (
         SELECT endpoint, sum(n), sum(ok) FROM (
             SELECT endpoint, n, ok FROM rollup_minute WHERE at_ms >= (SELECT since_ms FROM span)
             UNION ALL SELECT endpoint, count(*), sum(ok) FROM tail GROUP BY endpoint)
          GROUP BY endpoint),
     times(endpoint, upto_us, n) AS (
         SELECT endpoint, upto_us, sum(n) FROM (
             SELECT endpoint, upto_us, n FROM histogram WHERE at_ms >= (SELECT since_ms FROM span)
             UNION ALL
             SELECT endpoint, (SELECT min(b.upto_us) FROM bucket b WHERE b.upto_us >= total_us), 1
               FROM tail WHERE ok)
          GROUP BY endpoint, upto_us),
     below(endpoint, upto_us, n, total) AS (
         SELECT endpoint, upto_us, sum(n) OVER (PARTITION BY endpoint ORDER BY upto_us),
                sum(n) OVER (PARTITION BY endpoint)
           FROM times),
     percentiles(endpoint, p50_us, p95_us) AS (
         SELECT endpoint, min(CASE WHEN n * 2 >= total THEN upto_us END),
                min(CASE WHEN n * 100 >= total * 95 THEN upto_us END)
           FROM below GROUP BY endpoint)
SELECT e.name AS name, e.candidate AS candidate, e.address AS address,
       c.n AS probes_24h, c.ok AS ok_24h, round(100.0 * c.ok / c.n, 3) AS percent_24h,
       p.p50_us / 1000.0 AS p50_ms, p.p95_us / 1000.0 AS p95_ms
  FROM counts c JOIN endpoint e ON e.id = c.endpoint LEFT JOIN percentiles p ON p.endpoint = c.endpoint;

CREATE VIEW rollups AS          -- probes by the minute, by the hour where the minutes are gone
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', q.at_ms / 1000.0, 'unixepoch') AS time,
       e.name AS name, e.candidate AS candidate, e.address AS address, q.width_s AS width_s,
       q.n AS n, q.ok AS ok, q.min_us / 1000.0 AS min_ms, q.p50_us / 1000.0 AS p50_ms,
       q.p95_us / 1000.0 AS p95_ms, q.max_us / 1000.0 AS max_ms
  FROM (SELECT at_ms, endpoint, 60 AS width_s, n, ok, min_us, p50_us, p95_us, max_us FROM rollup_minute
        UNION ALL
        SELECT at_ms, endpoint, 3600, n, ok, min_us, p50_us, p95_us, max_us FROM rollup_hour
         WHERE at_ms < ifnull((SELECT value FROM setting WHERE key = 'hours_until_ms'), 0)) q
  JOIN endpoint e ON e.id = q.endpoint;
