MODEL (
  name marts.funnel_daily,
  kind FULL,
  owner data,
  grain (property_id, date, step),
  depends_on (
    staging.stg_google_analytics__events,
    staging.stg_google_analytics__report_quality
  ),
  description 'How many visitors took each step to a purchase, one row a step on each day that Google Analytics reported. Google tells how many did each thing, not who: that the same ones went from step to step is not said, and who looked on one day may buy on another.',
  column_descriptions (
    property_id = 'Number of the property of Google Analytics.',
    date = 'Day in the time zone of the property.',
    step = 'Place of the step: 1 to 4.',
    event_name = 'Event of Google Analytics that the step is: view_item, add_to_cart, begin_checkout, purchase.',
    events = 'How often it happened.',
    users = 'Visitors who did it on this day; never to be added up over days or steps.',
    share_of_first = 'These visitors divided by those of the first step, a ratio of two counts that may be more than 1; null where nobody took that one.',
    share_of_previous = 'These visitors divided by those of the step before; null for the first, and where nobody took that one.',
    is_final = 'Whether the day had ended when it was read; Google may still restate it.',
    is_exact = 'Whether Google counted everything on that day: nothing sampled, nothing held back, nothing rolled up into (other).'
  ),
  audits (
    not_null(columns := (property_id, date, step, event_name, events, users)),
    unique_combination_of_columns(columns := (property_id, date, step)),
    funnel_matches_events
  )
);

/* The steps: a shop whose purchase takes others names them here, in their order. */
WITH steps AS (
  SELECT
    1 AS step,
    'view_item' AS event_name
  UNION ALL
  SELECT
    2,
    'add_to_cart'
  UNION ALL
  SELECT
    3,
    'begin_checkout'
  UNION ALL
  SELECT
    4,
    'purchase'
), days AS (
  SELECT
    property_id,
    date,
    is_final,
    NOT (
      COALESCE(has_other_row, FALSE)
      OR COALESCE(is_thresholded, FALSE)
      OR COALESCE(is_sampled, FALSE)
    ) AS is_exact
  FROM staging.stg_google_analytics__report_quality
  WHERE
    report = 'events'
), counted AS (
  SELECT
    days.property_id,
    days.date,
    steps.step,
    steps.event_name,
    COALESCE(events.event_count, 0) AS events,
    COALESCE(events.total_users, 0) AS users,
    days.is_final,
    days.is_exact
  FROM days
  CROSS JOIN steps
  LEFT JOIN staging.stg_google_analytics__events AS events
    ON events.property_id = days.property_id
    AND events.date = days.date
    AND events.event_name = steps.event_name
)
SELECT
  property_id::TEXT AS property_id,
  date::DATE AS date,
  step::INT AS step,
  event_name::TEXT AS event_name,
  events::BIGINT AS events,
  users::BIGINT AS users,
  ROUND((
    users / NULLIF(FIRST_VALUE(users) OVER each_day, 0)
  )::DECIMAL(38, 12), 6)::DECIMAL(18, 6) AS share_of_first,
  ROUND((
    users / NULLIF(LAG(users) OVER each_day, 0)
  )::DECIMAL(38, 12), 6)::DECIMAL(18, 6) AS share_of_previous,
  is_final::BOOLEAN AS is_final,
  is_exact::BOOLEAN AS is_exact
FROM counted
WINDOW each_day AS (PARTITION BY property_id, date ORDER BY step)
