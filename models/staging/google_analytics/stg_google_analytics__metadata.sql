MODEL (
  name staging.stg_google_analytics__metadata,
  kind VIEW,
  owner data,
  grain (property_id, kind, api_name),
  description 'The dimensions and metrics that each property of Google Analytics knows now, one row each.',
  column_descriptions (
    property_id = 'Number of the property.',
    kind = 'dimension or metric.',
    api_name = 'Name in the API, as reports are declared.',
    column_name = 'Name of the column in reports.',
    ui_name = 'Title in Google Analytics.',
    description = 'What Google says of it.',
    category = 'Where Google groups it.',
    type = 'Type of a metric; null for dimensions.',
    expression = 'How a metric is made of others; null where it is not.',
    deprecated_api_names = 'Names it had before, a JSON array.',
    blocked_reasons = 'Why this account sees only zeros of a metric; null where it sees it.',
    is_custom = 'Whether the property defined it itself.',
    loaded_at = 'When this version of the row was read, UTC.'
  ),
  audits (
    not_null(columns := (property_id, kind, api_name)),
    unique_combination_of_columns(columns := (property_id, kind, api_name))
  )
);

SELECT
  property_id::TEXT AS property_id,
  kind::TEXT AS kind,
  api_name::TEXT AS api_name,
  column_name::TEXT AS column_name,
  ui_name::TEXT AS ui_name,
  description::TEXT AS description,
  category::TEXT AS category,
  type::TEXT AS type,
  expression::TEXT AS expression,
  deprecated_api_names::TEXT AS deprecated_api_names,
  blocked_reasons::TEXT AS blocked_reasons,
  is_custom::BOOLEAN AS is_custom,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_google_analytics.metadata
WHERE
  _deleted_at IS NULL
