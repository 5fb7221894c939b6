MODEL (
  name marts.identity_map,
  kind FULL,
  owner data,
  grain (source, source_key),
  depends_on (
    staging.stg_postgres__users,
    staging.stg_stripe__customers,
    staging.stg_zendesk__users
  ),
  description 'Who is who: every person of every source that knows persons, one row each, with the customer that the person is. What another system declares to be the key of a production user goes first (Stripe: metadata, Zendesk: external_id), the keyed hash of the email second. What speaks for two production users is joined to none and says why: a wrong join shows one customer the money of another, and erases it with the other. Who has no production user is joined by email among themselves. Deleted persons stay. Google Analytics reports give no key of a person, so it has no rows here.',
  column_descriptions (
    source = 'System that knows the person: postgres (production), stripe or zendesk.',
    source_key = 'Key of the person there, as text: production user, Stripe customer (live mode), Zendesk user.',
    customer_key = 'The customer that this is, the same in every source: postgres:<user id>; without a production user the source and key of the first made of those who share the email.',
    user_id = 'The production user; null where none was found, or more than one.',
    match_method = 'self (is the production user), declared_and_email (both say so), declared, email, shared_email (nobody in production, but others here have the email) or none.',
    is_ambiguous = 'Whether what is known speaks for more than one production user; joined to none then.',
    unmatched_reason = 'Why there is no production user: declared_and_email_differ, email_of_several_users, declared_user_unknown, no_email or no_such_email; null where there is one.',
    keys_of_customer = 'How many keys of this source the customer has; more than 1 where one person is kept twice there, or two persons are one customer.',
    is_staff = 'Whether the person is an agent or admin of Zendesk.',
    is_deleted = 'Whether the source has deleted the person.',
    created_at = 'When the source made the person, UTC.',
    loaded_at = 'When this version of the person was loaded, UTC.'
  ),
  audits (
    not_null(columns := (source, source_key, customer_key, match_method, is_ambiguous)),
    unique_combination_of_columns(columns := (source, source_key)),
    identities_match_staging,
    identities_are_of_one_user
  )
);

WITH users AS (
  SELECT
    *
  FROM staging.stg_postgres__users
), stripe_customers AS (
  SELECT
    *
  FROM staging.stg_stripe__customers
  WHERE
    is_live
), requesters AS (
  SELECT
    *
  FROM staging.stg_zendesk__users
), owners AS (
  SELECT
    email_hash,
    COUNT(*) FILTER(WHERE
      deleted_at IS NULL) AS living,
    MIN(user_id) FILTER(WHERE
      deleted_at IS NULL) AS living_id,
    COUNT(*) AS users,
    MIN(user_id) AS any_id
  FROM users
  WHERE
    is_email_valid
  GROUP BY
    email_hash
), known_as AS (
  SELECT
    email_hash,
    CASE WHEN living = 1 THEN living_id WHEN living = 0 AND users = 1 THEN any_id END AS user_id
  FROM owners
), persons AS (
  SELECT
    'postgres' AS source,
    user_id::TEXT AS source_key,
    user_id::TEXT AS declared_key,
    email_hash,
    is_email_valid,
    FALSE AS is_staff,
    NOT deleted_at IS NULL AS is_deleted,
    created_at,
    loaded_at
  FROM users
  UNION ALL
  SELECT
    'stripe',
    customer_id,
    TRIM(declared_user_id),
    email_hash,
    COALESCE(is_email_valid, FALSE),
    FALSE,
    is_deleted,
    created_at,
    loaded_at
  FROM stripe_customers
  UNION ALL
  SELECT
    'zendesk',
    user_id::TEXT,
    TRIM(external_id),
    email_hash,
    NOT email_hash IS NULL,
    COALESCE(role <> 'end-user', FALSE),
    is_deleted,
    created_at,
    loaded_at
  FROM requesters
), compared AS (
  SELECT
    persons.source,
    persons.source_key,
    persons.email_hash,
    persons.is_email_valid,
    persons.is_staff,
    persons.is_deleted,
    persons.created_at,
    persons.loaded_at,
    NULLIF(persons.declared_key, '') AS declared_key,
    declared.user_id AS declared_id,
    known_as.user_id AS email_id,
    NOT known_as.email_hash IS NULL AS is_email_known,
    NOT known_as.email_hash IS NULL
    AND declared.email_hash IS DISTINCT FROM persons.email_hash AS is_email_of_others
  FROM persons
  LEFT JOIN users AS declared
    ON declared.user_id::TEXT = persons.declared_key
  LEFT JOIN known_as
    ON known_as.email_hash = persons.email_hash
), judged AS (
  SELECT
    source,
    source_key,
    email_hash,
    is_email_valid,
    is_staff,
    is_deleted,
    created_at,
    loaded_at,
    CASE
      WHEN source = 'postgres'
      THEN declared_id
      WHEN NOT declared_id IS NULL AND is_email_of_others
      THEN NULL
      ELSE COALESCE(declared_id, email_id)
    END AS user_id,
    CASE
      WHEN source = 'postgres'
      THEN 'self'
      WHEN NOT declared_id IS NULL AND is_email_of_others
      THEN 'none'
      WHEN NOT declared_id IS NULL AND is_email_known
      THEN 'declared_and_email'
      WHEN NOT declared_id IS NULL
      THEN 'declared'
      WHEN NOT email_id IS NULL
      THEN 'email'
      ELSE 'none'
    END AS match_method,
    CASE
      WHEN source = 'postgres'
      THEN NULL
      WHEN NOT declared_id IS NULL AND is_email_of_others
      THEN 'declared_and_email_differ'
      WHEN NOT declared_id IS NULL OR NOT email_id IS NULL
      THEN NULL
      WHEN is_email_known
      THEN 'email_of_several_users'
      WHEN NOT declared_key IS NULL
      THEN 'declared_user_unknown'
      WHEN email_hash IS NULL OR NOT is_email_valid
      THEN 'no_email'
      ELSE 'no_such_email'
    END AS unmatched_reason
  FROM compared
), strangers AS (
  SELECT
    email_hash,
    ARG_MIN(
      CONCAT(source, ':', source_key),
      CONCAT(COALESCE(created_at, loaded_at)::TEXT, source, source_key)
    ) AS first_key,
    COUNT(*) AS persons
  FROM judged
  WHERE
    is_email_valid AND unmatched_reason = 'no_such_email'
  GROUP BY
    email_hash
), keyed AS (
  SELECT
    judged.source,
    judged.source_key,
    judged.user_id,
    judged.match_method,
    judged.unmatched_reason,
    judged.is_staff,
    judged.is_deleted,
    judged.created_at,
    judged.loaded_at,
    COALESCE(strangers.persons, 1) > 1 AS is_shared,
    COALESCE(
      'postgres:' || judged.user_id::TEXT,
      strangers.first_key,
      CONCAT(judged.source, ':', judged.source_key)
    ) AS customer_key
  FROM judged
  LEFT JOIN strangers
    ON strangers.email_hash = judged.email_hash
    AND judged.is_email_valid
    AND judged.unmatched_reason = 'no_such_email'
)
SELECT
  source::TEXT AS source,
  source_key::TEXT AS source_key,
  customer_key::TEXT AS customer_key,
  user_id::BIGINT AS user_id,
  CASE
    WHEN match_method = 'none' AND is_shared
    THEN 'shared_email'
    ELSE match_method
  END::TEXT AS match_method,
  COALESCE(unmatched_reason IN ('declared_and_email_differ', 'email_of_several_users'), FALSE)::BOOLEAN AS is_ambiguous,
  unmatched_reason::TEXT AS unmatched_reason,
  (
    COUNT(*) OVER (PARTITION BY source, customer_key)
  )::BIGINT AS keys_of_customer,
  is_staff::BOOLEAN AS is_staff,
  is_deleted::BOOLEAN AS is_deleted,
  created_at::TIMESTAMP AS created_at,
  loaded_at::TIMESTAMP AS loaded_at
FROM keyed
