MODEL (
  name marts.user_dim,
  kind VIEW,
  owner data,
  grain user_id,
  depends_on (
    staging.stg_postgres__users
  ),
  description 'Every user as valid now; earlier versions are in marts.user_dim_history.',
  column_descriptions (
    user_id = 'Key of the user in the production database.',
    email_hash = 'Keyed hash of the normalised email; joins with other sources, not reversible.',
    is_email_valid = 'Whether the email had the shape of an email when it was loaded.',
    signup_date = 'UTC day on which the user signed up.',
    country = 'ISO 3166-1 alpha-2 code of the country.',
    segment = 'Kind of customer: consumer, small_business or enterprise.',
    age = 'Age in years as production states it.',
    valid_from = 'Since when this version is valid, UTC.'
  ),
  audits (
    not_null(columns := (user_id, signup_date)),
    unique_values(columns := user_id),
    users_match_staging
  )
);

SELECT
  user_id::BIGINT AS user_id,
  email_hash::TEXT AS email_hash,
  is_email_valid::BOOLEAN AS is_email_valid,
  signup_date::DATE AS signup_date,
  country::TEXT AS country,
  segment::TEXT AS segment,
  age::INT AS age,
  valid_from::TIMESTAMP AS valid_from
FROM marts.user_dim_history
WHERE
  valid_to IS NULL
