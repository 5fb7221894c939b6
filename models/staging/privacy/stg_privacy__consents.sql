MODEL (
  name staging.stg_privacy__consents,
  kind VIEW,
  owner data,
  grain (source, source_key, purpose, changed_at, line, channel),
  description 'Every word on record of what a person agreed to or took back, renamed and cast; of persons whom the warehouse knows and who were not erased since.',
  column_descriptions (
    source = 'System that knows the person: postgres (production), stripe or zendesk.',
    source_key = 'Key of the person there, as text.',
    purpose = 'What was agreed to: a purpose that privacy/policy.yaml declares under consent.',
    version = 'Version of the words that were agreed to.',
    is_given = 'Whether consent was given; false where it was withdrawn.',
    channel = 'Where it was said: a form, a call, a file, or the column of a raw table.',
    changed_at = 'When it was said, UTC.',
    recorded_at = 'When it was recorded, UTC.',
    line = 'Line of the record; -1 where a column of a raw table says it.'
  ),
  audits (
    not_null(columns := (source, source_key, purpose, is_given, channel, changed_at)),
    unique_combination_of_columns(columns := (source, source_key, purpose, changed_at, line, channel))
  )
);

SELECT
  source::TEXT AS source,
  source_key::TEXT AS source_key,
  purpose::TEXT AS purpose,
  version::TEXT AS version,
  is_given::BOOLEAN AS is_given,
  channel::TEXT AS channel,
  (
    changed_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS changed_at,
  (
    recorded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS recorded_at,
  COALESCE(line, -1)::BIGINT AS line
FROM raw_privacy.consents
