MODEL (
  name staging.stg_zendesk__organizations,
  kind VIEW,
  owner data,
  grain organization_id,
  description 'One row an organization of Zendesk.',
  column_descriptions (
    organization_id = 'Key of the organization in Zendesk.',
    organization_name = 'Its name.',
    external_id = 'Key of the organization in another system.',
    domain_names = 'Domains whose users belong to it, a JSON list.',
    group_id = 'The group that its tickets go to.',
    tags = 'Tags, a JSON list.',
    created_at = 'When it was made, UTC.',
    updated_at = 'When it last changed, UTC.',
    is_deleted = 'Whether it was deleted.',
    deleted_at = 'When it was deleted, UTC; null while it is there.',
    loaded_at = 'When this version of the row was read, UTC; strictly rising from load to load.'
  ),
  audits (not_null(columns := organization_id), unique_values(columns := organization_id))
);

SELECT
  id::BIGINT AS organization_id,
  name::TEXT AS organization_name,
  external_id::TEXT AS external_id,
  domain_names::TEXT AS domain_names,
  group_id::BIGINT AS group_id,
  tags::TEXT AS tags,
  (
    created_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS created_at,
  (
    updated_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS updated_at,
  is_deleted::BOOLEAN AS is_deleted,
  (
    deleted_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS deleted_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_zendesk.organizations
