MODEL (
  name marts.acquisition_daily,
  kind FULL,
  owner data,
  grain (property_id, date, source, medium, campaign, channel),
  depends_on (
    staging.stg_google_analytics__acquisition
  ),
  description 'Visits by where they came from, one row a source, medium, campaign and channel on each day of each property, as Google Analytics states them now: a day that it restates is restated here with the next load, and what it took back is gone.',
  column_descriptions (
    property_id = 'Number of the property of Google Analytics.',
    date = 'Day in the time zone of the property, which is not always that of other reports.',
    source = 'Where the visit came from, for example google or (direct), by its last click that was not direct; (not set) where Google does not know.',
    medium = 'How it came, for example organic, cpc or (none).',
    campaign = 'Campaign of the visit; (not set) where there is none.',
    channel = 'Google''s own grouping of sources and mediums.',
    sessions = 'Visits that began.',
    engaged_sessions = 'Visits of at least ten seconds, with two pages or with a key event.',
    users = 'Visitors; somebody who came twice is in both rows, so never add them up.',
    new_users = 'Visitors whose first visit this was; these may be added up.',
    key_events = 'Key events; a part of one where several visits share it.',
    transactions = 'Purchases that Google saw.',
    revenue = 'Revenue of these purchases less refunds, as the shop told Google; not the revenue of marts.daily_revenue.',
    currency = 'ISO 4217 code of the revenue, as the property is set.',
    is_final = 'Whether the day had ended when it was read; Google may still restate it.',
    is_exact = 'Whether Google counted everything on that day: nothing sampled, nothing held back, nothing rolled up into (other).'
  ),
  audits (
    not_null(
      columns := (property_id, date, source, medium, campaign, channel, sessions, users, new_users)
    ),
    unique_combination_of_columns(columns := (property_id, date, source, medium, campaign, channel)),
    visits_match_staging
  )
);

WITH exact AS (
  SELECT
    property_id,
    date,
    BOOL_AND(
      CAST(NOT (
        COALESCE(has_other_row, FALSE)
        OR COALESCE(is_thresholded, FALSE)
        OR COALESCE(is_sampled, FALSE)
      ) AS BOOLEAN)
    ) AS is_exact
  FROM staging.stg_google_analytics__report_quality
  WHERE
    report = 'acquisition'
  GROUP BY
    property_id,
    date
)
SELECT
  visits.property_id::TEXT AS property_id,
  visits.date::DATE AS date,
  COALESCE(visits.session_source, '(not set)')::TEXT AS source,
  COALESCE(visits.session_medium, '(not set)')::TEXT AS medium,
  COALESCE(visits.session_campaign_name, '(not set)')::TEXT AS campaign,
  COALESCE(visits.session_default_channel_group, '(not set)')::TEXT AS channel,
  COALESCE(visits.sessions, 0)::BIGINT AS sessions,
  COALESCE(visits.engaged_sessions, 0)::BIGINT AS engaged_sessions,
  COALESCE(visits.total_users, 0)::BIGINT AS users,
  COALESCE(visits.new_users, 0)::BIGINT AS new_users,
  COALESCE(visits.key_events, 0)::DOUBLE AS key_events,
  COALESCE(visits.transactions, 0)::BIGINT AS transactions,
  visits.purchase_revenue::DECIMAL(38, 6) AS revenue,
  visits.currency::TEXT AS currency,
  visits.is_final::BOOLEAN AS is_final,
  exact.is_exact::BOOLEAN AS is_exact
FROM staging.stg_google_analytics__acquisition AS visits
LEFT JOIN exact
  ON exact.property_id = visits.property_id AND exact.date = visits.date
