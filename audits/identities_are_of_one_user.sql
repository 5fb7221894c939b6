AUDIT (
  name identities_are_of_one_user
);

/* A customer is one production user or none, by its key; who is ambiguous has none and shares a key with nobody; who has none says why. */
SELECT
  source,
  source_key
FROM @this_model
WHERE
  (
    NOT user_id IS NULL AND customer_key <> CONCAT('postgres:', user_id::TEXT)
  )
  OR (
    user_id IS NULL AND STARTS_WITH(customer_key, 'postgres:')
  )
  OR (
    user_id IS NULL
  ) <> (
    NOT unmatched_reason IS NULL
  )
  OR (
    source = 'postgres' AND user_id::TEXT IS DISTINCT FROM source_key
  )
  OR (
    is_ambiguous AND (
      NOT user_id IS NULL OR keys_of_customer > 1
    )
  )
