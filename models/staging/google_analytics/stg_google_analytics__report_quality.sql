MODEL (
  name staging.stg_google_analytics__report_quality,
  kind VIEW,
  owner data,
  grain (property_id, report, date),
  description 'What each day of each report of Google Analytics was like when it was last read, one row each, empty days too.',
  column_descriptions (
    property_id = 'Number of the property.',
    report = 'Name of the report, as its table is called.',
    date = 'Day, in the time zone of the property.',
    row_count = 'Rows of the day when it was last read.',
    is_final = 'Whether the day had ended when it was read.',
    has_other_row = 'Whether Google rolled rare values up into an (other) row.',
    other_share = 'Part of the first metric that is in (other) rows; null where there is nothing to share.',
    is_thresholded = 'Whether Google may have held rows back, so that nobody is recognised.',
    is_sampled = 'Whether Google looked at a sample of the events.',
    samples_read = 'Events looked at, where sampled.',
    sampling_space = 'Events there were, where sampled.',
    empty_reason = 'Why the report is empty, where Google says so.',
    truncated = 'What Google cut off, where it says so.',
    time_zone = 'IANA time zone of the property when it was read.',
    currency = 'ISO 4217 code of the property when it was read.',
    definition = 'Fingerprint of the report''s fields and filters; another one reads the day anew.',
    requests = 'Requests that the day took.',
    tokens_left_day = 'Tokens of the property left for the day after it was read.',
    tokens_left_hour = 'Tokens of the property left for the hour.',
    tokens_left_project_hour = 'Tokens of the property left for the hour and this project.',
    read_at = 'When the day was last read, UTC.',
    loaded_at = 'When this row was written, UTC.'
  ),
  audits (
    not_null(columns := (property_id, report, date)),
    unique_combination_of_columns(columns := (property_id, report, date))
  )
);

SELECT
  property_id::TEXT AS property_id,
  report::TEXT AS report,
  date::DATE AS date,
  row_count::BIGINT AS row_count,
  is_final::BOOLEAN AS is_final,
  has_other_row::BOOLEAN AS has_other_row,
  other_share::DECIMAL(38, 6) AS other_share,
  is_thresholded::BOOLEAN AS is_thresholded,
  is_sampled::BOOLEAN AS is_sampled,
  samples_read::BIGINT AS samples_read,
  sampling_space::BIGINT AS sampling_space,
  empty_reason::TEXT AS empty_reason,
  truncated::TEXT AS truncated,
  time_zone::TEXT AS time_zone,
  currency::TEXT AS currency,
  definition::TEXT AS definition,
  requests::BIGINT AS requests,
  tokens_left_day::BIGINT AS tokens_left_day,
  tokens_left_hour::BIGINT AS tokens_left_hour,
  tokens_left_project_hour::BIGINT AS tokens_left_project_hour,
  (
    read_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS read_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_google_analytics.report_quality
