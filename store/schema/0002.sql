-- Version 2: the rollups of a span of time are found by the text of their times, as the view has it.

CREATE TABLE rollup_time (      -- every time that rollups have, as text: the view's filter by time finds them through it
    time  TEXT PRIMARY KEY,
    at_ms INTEGER NOT NULL      -- in both tables, rollup_minute and rollup_hour
) WITHOUT ROWID;
INSERT OR IGNORE INTO rollup_time -- a clock that was wrong may have left times that are none
    SELECT strftime('%Y-%m-%dT%H:%M:%fZ', at_ms / 1000.0, 'unixepoch'), at_ms
      FROM (SELECT at_ms FROM rollup_minute UNION SELECT at_ms FROM rollup_hour);

DROP VIEW rollups;
CREATE VIEW rollups AS          -- probes by the minute, by the hour where the minutes are gone; filter by time
SELECT t.time AS time, e.name AS name, e.candidate AS candidate, e.address AS address, 60 AS width_s,
       r.n AS n, r.ok AS ok, r.min_us / 1000.0 AS min_ms, r.p50_us / 1000.0 AS p50_ms,
       r.p95_us / 1000.0 AS p95_ms, r.max_us / 1000.0 AS max_ms
  FROM rollup_time t CROSS JOIN rollup_minute r ON r.at_ms = t.at_ms -- in this order: SQLite can't know how few times are wanted
  JOIN endpoint e ON e.id = r.endpoint
UNION ALL
SELECT t.time, e.name, e.candidate, e.address, 3600,
       r.n, r.ok, r.min_us / 1000.0, r.p50_us / 1000.0, r.p95_us / 1000.0, r.max_us / 1000.0
  FROM rollup_time t CROSS JOIN rollup_hour r ON r.at_ms = t.at_ms
  JOIN endpoint e ON e.id = r.endpoint
 WHERE r.at_ms < ifnull((SELECT value FROM setting WHERE key = 'hours_until_ms'), 0);
