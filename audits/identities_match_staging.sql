AUDIT (
  name identities_match_staging
);

/* Every person of every source is there, and nobody else. */
WITH staged AS (
  SELECT
    'postgres' AS source,
    user_id::TEXT AS source_key
  FROM staging.stg_postgres__users
  UNION ALL
  SELECT
    'stripe',
    customer_id
  FROM staging.stg_stripe__customers
  WHERE
    is_live
  UNION ALL
  SELECT
    'zendesk',
    user_id::TEXT
  FROM staging.stg_zendesk__users
)
SELECT
  *
FROM staged
FULL OUTER JOIN @this_model AS here
  ON here.source = staged.source AND here.source_key = staged.source_key
WHERE
  here.source IS NULL OR staged.source IS NULL
