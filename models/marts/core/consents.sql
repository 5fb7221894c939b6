MODEL (
  name marts.consents,
  kind FULL,
  owner data,
  grain (customer_key, purpose),
  description 'What each customer agrees to now, one row for each purpose on which there is a word: the last one said by any of the persons that the customer is. A withdrawal of the same instant wins. Models for a purpose take customers by @consented.',
  column_descriptions (
    customer_key = 'The customer; see marts.identity_map.',
    purpose = 'What is or was agreed to; privacy/policy.yaml says what each means.',
    version = 'Version of the words of the last word said.',
    is_given = 'Whether the customer consents now.',
    changed_at = 'When the last word was said, UTC.',
    channel = 'Where it was said.',
    words = 'Number of words on record of this customer and purpose.'
  ),
  audits (
    not_null(columns := (customer_key, purpose, version, is_given, changed_at)),
    unique_combination_of_columns(columns := (customer_key, purpose))
  )
);

WITH identities AS (
  SELECT
    *
  FROM marts.identity_map
), words AS (
  SELECT
    *
  FROM staging.stg_privacy__consents
), ranked AS (
  SELECT
    identities.customer_key,
    words.purpose,
    words.version,
    words.is_given,
    words.changed_at,
    words.channel,
    COUNT(*) OVER (PARTITION BY identities.customer_key, words.purpose) AS words,
    ROW_NUMBER() OVER (
      PARTITION BY identities.customer_key, words.purpose
      ORDER BY words.changed_at DESC, words.is_given, words.line DESC, words.channel
    ) AS place
  FROM words
  JOIN identities
    ON identities.source = words.source AND identities.source_key = words.source_key
)
SELECT
  customer_key::TEXT AS customer_key,
  purpose::TEXT AS purpose,
  version::TEXT AS version,
  is_given::BOOLEAN AS is_given,
  changed_at::TIMESTAMP AS changed_at,
  channel::TEXT AS channel,
  words::BIGINT AS words
FROM ranked
WHERE
  place = 1
