AUDIT (
  name users_match_staging
);

/* Every user of staging is valid now with the values of staging, and nobody else is. */
WITH here AS (
  SELECT
    user_id,
    email_hash,
    is_email_valid,
    signup_date,
    country,
    segment,
    age
  FROM @this_model
), staged AS (
  SELECT
    user_id,
    email_hash,
    is_email_valid,
    created_at::DATE AS signup_date,
    country,
    segment,
    age
  FROM staging.stg_postgres__users
  WHERE
    deleted_at IS NULL
)
(
  SELECT
    *
  FROM here
  EXCEPT
  SELECT
    *
  FROM staged
)
UNION ALL
(
  SELECT
    *
  FROM staged
  EXCEPT
  SELECT
    *
  FROM here
)
