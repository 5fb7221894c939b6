MODEL (
  name marts.business_hours,
  kind FULL,
  owner data,
  grain (schedule_id, opens_at),
  description 'When each schedule was open, one row an uninterrupted span of one local day: the weekly hours in the schedule''s own time zone, daylight saving included, by the version in force at that time and without its holidays. From two days before the first ticket to two days after the newest load.',
  column_descriptions (
    schedule_id = 'Key of the schedule; see marts.schedule_history.',
    local_date = 'Day in the time zone of the schedule.',
    opens_at = 'When it opens, UTC.',
    closes_at = 'When it closes, UTC.',
    seconds_before = 'How long the schedule was open before, in seconds since its first row: the business time from a to b is what it is at b less what it is at a.'
  ),
  audits (
    not_null(columns := (schedule_id, local_date, opens_at, closes_at, seconds_before)),
    unique_combination_of_columns(columns := (schedule_id, opens_at)),
    spans_do_not_overlap
  )
);

/* The first version that a load saw counts for the time before it as well: nothing else is known of it. */
WITH versions AS (
  SELECT
    schedule_id,
    iana_time_zone,
    intervals,
    CASE WHEN LAG(valid_from) OVER each_schedule IS NULL THEN NULL ELSE valid_from END AS valid_from,
    valid_to
  FROM marts.schedule_history
  WHERE
    NOT iana_time_zone IS NULL
  WINDOW each_schedule AS (PARTITION BY schedule_id ORDER BY valid_from)
), slots AS (
  SELECT
    schedule_id,
    iana_time_zone,
    valid_from,
    valid_to,
    UNNEST(intervals::JSON::JSON[]) AS slot
  FROM versions
), weekdays AS (
  SELECT
    UNNEST([0, 1, 2, 3, 4, 5, 6]) AS weekday
), weekly AS (
  SELECT
    slots.schedule_id,
    slots.iana_time_zone,
    slots.valid_from,
    slots.valid_to,
    weekdays.weekday,
    GREATEST(CAST(slots.slot ->> '$.start_time' AS INT) - weekdays.weekday * 1440, 0) AS start_minute,
    LEAST(CAST(slots.slot ->> '$.end_time' AS INT) - weekdays.weekday * 1440, 1440) AS end_minute
  FROM slots
  CROSS JOIN weekdays
), days AS (
  SELECT
    UNNEST(
      GENERATE_SERIES(
        MIN(created_at)::DATE - INTERVAL '2' DAY,
        MAX(loaded_at)::DATE + INTERVAL '2' DAY,
        INTERVAL '1' DAY
      )
    )::DATE AS local_date
  FROM staging.stg_zendesk__tickets
), spans AS (
  SELECT
    weekly.schedule_id,
    days.local_date,
    weekly.start_minute,
    weekly.valid_from,
    weekly.valid_to,
    (
      (
        days.local_date + weekly.start_minute * INTERVAL '1' MINUTE
      ) AT TIME ZONE weekly.iana_time_zone
    ) AT TIME ZONE 'UTC' AS opens_at,
    (
      (
        days.local_date + weekly.end_minute * INTERVAL '1' MINUTE
      ) AT TIME ZONE weekly.iana_time_zone
    ) AT TIME ZONE 'UTC' AS closes_at
  FROM weekly
  INNER JOIN days
    ON DATE_DIFF('DAY', '1970-01-04'::DATE, days.local_date) % 7 = weekly.weekday
  LEFT JOIN staging.stg_zendesk__schedule_holidays AS holidays
    ON holidays.schedule_id = weekly.schedule_id
    AND holidays.start_date <= days.local_date
    AND holidays.end_date >= days.local_date
    AND COALESCE(holidays.deleted_at, '9999-12-31'::TIMESTAMP) > days.local_date
  WHERE
    weekly.start_minute < weekly.end_minute AND holidays.holiday_id IS NULL
), in_force AS (
  /* An hour that the clock skips counts as the one after it, so what closes in it must not reach into what opens after it. */
  SELECT
    schedule_id,
    local_date,
    GREATEST(opens_at, COALESCE(valid_from, opens_at)) AS opens_at,
    LEAST(
      closes_at,
      COALESCE(valid_to, closes_at),
      COALESCE(
        MIN(opens_at) OVER (
          PARTITION BY schedule_id, valid_from
          ORDER BY local_date, start_minute
          ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
        ),
        closes_at
      )
    ) AS closes_at
  FROM spans
)
SELECT
  schedule_id::BIGINT AS schedule_id,
  local_date::DATE AS local_date,
  opens_at::TIMESTAMP AS opens_at,
  closes_at::TIMESTAMP AS closes_at,
  COALESCE(
    SUM(DATE_DIFF('SECOND', opens_at, closes_at)) OVER (
      PARTITION BY schedule_id
      ORDER BY opens_at
      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ),
    0
  )::BIGINT AS seconds_before
FROM in_force
WHERE
  opens_at < closes_at
