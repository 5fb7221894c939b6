MODEL (
  name staging.stg_google_analytics__acquisition,
  kind VIEW,
  owner data,
  grain row_id,
  description 'Visits by where they came from, one row a combination of the dimensions on each day of each property; rows that Google took back are left out.',
  column_descriptions (
    row_id = 'Key of the row: a keyed hash of property, date and all dimensions.',
    property_id = 'Number of the property.',
    date = 'Day, in the time zone of the property.',
    session_source = 'Where the visit came from, for example google or (direct).',
    session_medium = 'How it came, for example organic, cpc or (none).',
    session_campaign_name = 'Campaign of the visit; (not set) where there is none.',
    session_default_channel_group = 'Google''s own grouping of sources and mediums.',
    sessions = 'Visits that began.',
    engaged_sessions = 'Visits of at least ten seconds, with two pages or with a key event.',
    total_users = 'Users; not to be added up over rows or days.',
    new_users = 'Users whose first visit this was.',
    user_engagement_duration = 'Seconds during which the site was in the foreground.',
    key_events = 'Key events; a part of one where several visits share it.',
    transactions = 'Purchases.',
    purchase_revenue = 'Revenue of purchases less refunds, in the currency beside it.',
    currency = 'ISO 4217 code of the amounts, as the property is set.',
    is_final = 'Whether the day had ended when it was read; Google may still restate it.',
    loaded_at = 'When this version of the row was read, UTC.'
  ),
  audits (
    not_null(columns := (row_id, property_id, date)),
    unique_values(columns := row_id)
  )
);

SELECT
  row_id::TEXT AS row_id,
  property_id::TEXT AS property_id,
  date::DATE AS date,
  session_source::TEXT AS session_source,
  session_medium::TEXT AS session_medium,
  session_campaign_name::TEXT AS session_campaign_name,
  session_default_channel_group::TEXT AS session_default_channel_group,
  sessions::BIGINT AS sessions,
  engaged_sessions::BIGINT AS engaged_sessions,
  total_users::BIGINT AS total_users,
  new_users::BIGINT AS new_users,
  user_engagement_duration::DOUBLE AS user_engagement_duration,
  key_events::DOUBLE AS key_events,
  transactions::BIGINT AS transactions,
  purchase_revenue::DECIMAL(38, 6) AS purchase_revenue,
  currency::TEXT AS currency,
  is_final::BOOLEAN AS is_final,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_google_analytics.acquisition
WHERE
  _deleted_at IS NULL
