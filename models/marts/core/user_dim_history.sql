MODEL (
  name marts.user_dim_history,
  kind SCD_TYPE_2_BY_TIME (
    unique_key user_id,
    updated_at_name updated_at,
    updated_at_as_valid_from TRUE,
    invalidate_hard_deletes TRUE,
    time_data_type TIMESTAMP /* said once more, or any edit of this file would look like a change of type */
  ),
  owner data,
  grain (user_id, valid_from),
  references user_id,
  description 'Every version of a user that a load has seen, with the time from and to which it was valid (slowly changing dimension, type 2).',
  column_descriptions (
    user_id = 'Key of the user in the production database.',
    email_hash = 'Keyed hash of the normalised email.',
    is_email_valid = 'Whether the email had the shape of an email when it was loaded.',
    signup_date = 'UTC day on which the user signed up.',
    country = 'ISO 3166-1 alpha-2 code of the country.',
    segment = 'Kind of customer: consumer, small_business or enterprise.',
    age = 'Age in years as production states it.',
    updated_at = 'When this version came to be, UTC: as production stamps it, or when it was loaded if the stamp did not rise with the change.',
    loaded_at = 'When this version was loaded, UTC.',
    valid_from = 'From when this version is valid, UTC.',
    valid_to = 'Until when this version was valid, UTC; null means valid now.'
  ),
  audits (
    not_null(columns := (user_id, valid_from)),
    unique_combination_of_columns(columns := (user_id, valid_from)),
    one_current_version(key := user_id)
  )
);

SELECT
  users.user_id::BIGINT AS user_id,
  users.email_hash::TEXT AS email_hash,
  users.is_email_valid::BOOLEAN AS is_email_valid,
  users.created_at::DATE AS signup_date,
  users.country::TEXT AS country,
  users.segment::TEXT AS segment,
  users.age::INT AS age,
  @changed_at(users.user_id, users.updated_at, users.loaded_at)::TIMESTAMP AS updated_at,
  users.loaded_at::TIMESTAMP AS loaded_at
FROM staging.stg_postgres__users AS users
WHERE
  users.deleted_at IS NULL
