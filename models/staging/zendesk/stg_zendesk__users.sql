MODEL (
  name staging.stg_zendesk__users,
  kind VIEW,
  owner data,
  grain user_id,
  description 'One row a user of Zendesk, customers and agents; personal data arrives here pseudonymised.',
  column_descriptions (
    user_id = 'Key of the user in Zendesk.',
    email_hash = 'Keyed hash (HMAC-SHA256, hex) of the normalised email; equal across sources, not reversible.',
    phone_masked = 'Phone with all but its last two digits masked.',
    external_id = 'Key of the user in another system, as somebody gave it to Zendesk.',
    role = 'end-user, agent or admin.',
    organization_id = 'The organization that the user belongs to.',
    is_active = 'Whether the user is there; false in Zendesk means deleted.',
    is_suspended = 'Whether what the user writes is held back.',
    locale = 'Language of the user, a BCP 47 tag.',
    time_zone = 'Time zone as Zendesk names it.',
    created_at = 'When the user was made, UTC.',
    updated_at = 'When the user last changed, UTC.',
    is_deleted = 'Whether the user was deleted.',
    deleted_at = 'When the user was deleted, UTC; null while there.',
    loaded_at = 'When this version of the row was read, UTC; strictly rising from load to load.'
  ),
  audits (not_null(columns := user_id), unique_values(columns := user_id))
);

SELECT
  id::BIGINT AS user_id,
  email_hash::TEXT AS email_hash,
  phone_masked::TEXT AS phone_masked,
  external_id::TEXT AS external_id,
  role::TEXT AS role,
  organization_id::BIGINT AS organization_id,
  active::BOOLEAN AS is_active,
  suspended::BOOLEAN AS is_suspended,
  locale::TEXT AS locale,
  time_zone::TEXT AS time_zone,
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
FROM raw_zendesk.users
