MODEL (
  name staging.stg_zendesk__groups,
  kind VIEW,
  owner data,
  grain group_id,
  description 'One row a group of agents.',
  column_descriptions (
    group_id = 'Key of the group in Zendesk.',
    group_name = 'Its name.',
    is_public = 'Whether all agents see its tickets.',
    created_at = 'When it was made, UTC.',
    updated_at = 'When it last changed, UTC.',
    deleted_at = 'When the list of groups was first seen without it, UTC.',
    loaded_at = 'When this version of the row was read, UTC; strictly rising from load to load.'
  ),
  audits (not_null(columns := group_id), unique_values(columns := group_id))
);

SELECT
  id::BIGINT AS group_id,
  name::TEXT AS group_name,
  is_public::BOOLEAN AS is_public,
  (
    created_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS created_at,
  (
    updated_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS updated_at,
  (
    _deleted_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS deleted_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_zendesk.groups
