MODEL (
  name staging.stg_stripe__customers,
  kind VIEW,
  owner data,
  grain customer_id,
  description 'One row a customer, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    customer_id = 'Stripe''s id of the customer.',
    email_hash = 'Keyed hash (HMAC-SHA256, hex) of the normalised email; equal across sources, not reversible.',
    is_email_valid = 'Whether the email had the shape of an email, judged at load, before hashing.',
    phone_masked = 'Phone with all but its last two digits masked.',
    description = 'What the account wrote about the customer.',
    declared_user_id = 'Key of the production user, as the account wrote it into the metadata of the customer under the name that config.yaml declares (stripe_user_id_key); text, whatever stands there.',
    balance_minor = 'Credit (negative) or debt (positive) that the next invoice takes into account; in minor units, as Stripe counts them.',
    balance = 'Credit (negative) or debt (positive) that the next invoice takes into account; in the currency''s main unit.',
    currency = 'ISO 4217 code of the balance, upper case; null until the customer was first charged.',
    is_delinquent = 'Whether the last payment of an invoice failed.',
    created_at = 'When Stripe made the customer, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (customer_id, is_deleted, loaded_at)),
    unique_values(columns := customer_id)
  )
);

SELECT
  id::TEXT AS customer_id,
  email_hash::TEXT AS email_hash,
  is_email_valid::BOOLEAN AS is_email_valid,
  phone_masked::TEXT AS phone_masked,
  description::TEXT AS description,
  CAST(_object ->> CONCAT('$.metadata."', @stripe_user_id_key, '"') AS TEXT) AS declared_user_id,
  balance::BIGINT AS balance_minor,
  balance_decimal::DECIMAL(38, 3) AS balance,
  UPPER(currency)::TEXT AS currency,
  delinquent::BOOLEAN AS is_delinquent,
  (
    created_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS created_at,
  livemode::BOOLEAN AS is_live,
  is_deleted::BOOLEAN AS is_deleted,
  (
    deleted_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS deleted_at,
  (
    _settled_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS settled_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_stripe.customers
