AUDIT (
  name funnel_matches_events
);

/* Each day on which the events were read has all steps, and each step what the events say. */
SELECT
  COALESCE(here.date, days.date) AS date
FROM (
  SELECT
    property_id,
    date,
    COUNT(*) AS steps,
    SUM(events) AS events,
    SUM(users) AS users
  FROM @this_model
  GROUP BY
    property_id,
    date
) AS here
FULL OUTER JOIN (
  SELECT
    quality.property_id,
    quality.date,
    COALESCE(SUM(events.event_count), 0) AS events,
    COALESCE(SUM(events.total_users), 0) AS users
  FROM staging.stg_google_analytics__report_quality AS quality
  LEFT JOIN staging.stg_google_analytics__events AS events
    ON events.property_id = quality.property_id
    AND events.date = quality.date
    AND events.event_name IN (
      SELECT
        event_name
      FROM @this_model
    )
  WHERE
    quality.report = 'events'
  GROUP BY
    quality.property_id,
    quality.date
) AS days
  ON days.property_id = here.property_id AND days.date = here.date
WHERE
  here.date IS NULL
  OR days.date IS NULL
  OR here.steps <> 4
  OR here.events <> days.events
  OR here.users <> days.users
