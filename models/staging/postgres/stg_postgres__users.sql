MODEL (
  name staging.stg_postgres__users,
  kind VIEW,
  owner data,
  grain user_id,
  description 'One row a user of the production database, renamed and cast; personal data arrives here pseudonymised.',
  column_descriptions (
    user_id = 'Key of the user in the production database.',
    email_hash = 'Keyed hash (HMAC-SHA256, hex) of the normalised email; equal across sources, not reversible.',
    is_email_valid = 'Whether the email had the shape of an email, judged at load, before hashing.',
    phone_masked = 'Phone with all but its last two digits masked.',
    age = 'Age in years as production states it.',
    country = 'ISO 3166-1 alpha-2 code of the country.',
    segment = 'Kind of customer: consumer, small_business or enterprise.',
    created_at = 'When the user signed up, UTC.',
    updated_at = 'When production last changed the user, UTC.',
    loaded_at = 'When this version of the row was read from production, UTC; strictly rising from load to load.',
    deleted_at = 'When production was first seen without this user, UTC; null while it is there.'
  ),
  audits (not_null(columns := user_id), unique_values(columns := user_id))
);

SELECT
  id::BIGINT AS user_id,
  email_hash::TEXT AS email_hash,
  is_email_valid::BOOLEAN AS is_email_valid,
  phone_masked::TEXT AS phone_masked,
  age::INT AS age,
  country::TEXT AS country,
  segment::TEXT AS segment,
  (
    created_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS created_at,
  (
    updated_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS updated_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at,
  (
    _deleted_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS deleted_at
FROM raw_postgres.users
