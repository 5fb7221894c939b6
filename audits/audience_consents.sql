AUDIT (
  name audience_consents
);

/* Nobody is in the audience whose last word on the purpose, of any person the customer is, is not a consent. */
WITH words AS (
  SELECT
    identities.customer_key,
    MAX(words.changed_at) FILTER(WHERE
      words.is_given) AS given_at,
    MAX(words.changed_at) FILTER(WHERE
      NOT words.is_given) AS withdrawn_at
  FROM staging.stg_privacy__consents AS words
  JOIN marts.identity_map AS identities
    ON identities.source = words.source AND identities.source_key = words.source_key
  WHERE
    words.purpose = 'marketing'
  GROUP BY
    identities.customer_key
)
SELECT
  here.customer_key
FROM @this_model AS here
LEFT JOIN words
  ON words.customer_key = here.customer_key
WHERE
  words.given_at IS NULL OR words.withdrawn_at >= words.given_at
