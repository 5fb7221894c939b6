MODEL (
  name marts.marketing_audience,
  kind FULL,
  owner data,
  grain customer_key,
  depends_on (marts.identity_map, staging.stg_privacy__consents),
  description 'Customers who may be sent news and offers, one row each: those who consent to the purpose marketing now and whom a source still has. Nobody else may be written to. Whom a key stands for is known to the source alone.',
  column_descriptions (
    customer_key = 'The customer; see marts.identity_map.',
    user_id = 'The production user by whom the address is found; null where the customer is none.',
    consent_version = 'Version of the words that the customer agreed to.',
    consented_at = 'When the customer agreed, UTC.',
    country = 'ISO 3166-1 alpha-2 code of the country of the production user.',
    segment = 'Kind of customer: consumer, small_business or enterprise.',
    status = 'Whether one is a customer now: active, churned, paid or prospect; see marts.customer_360.',
    orders = 'Number of orders, in all currencies.',
    last_order_date = 'UTC day of the last order; null where there is none.'
  ),
  audits (
    not_null(columns := (customer_key, consent_version, consented_at, status, orders)),
    unique_values(columns := customer_key),
    audience_consents
  )
);

WITH customers AS (
  SELECT
    *
  FROM marts.customer_360
), consents AS (
  SELECT
    *
  FROM marts.consents
  WHERE
    purpose = 'marketing'
)
SELECT
  customers.customer_key::TEXT AS customer_key,
  customers.user_id::BIGINT AS user_id,
  consents.version::TEXT AS consent_version,
  consents.changed_at::TIMESTAMP AS consented_at,
  customers.country::TEXT AS country,
  customers.segment::TEXT AS segment,
  customers.status::TEXT AS status,
  customers.orders::BIGINT AS orders,
  customers.last_order_date::DATE AS last_order_date
FROM customers
JOIN consents
  ON consents.customer_key = customers.customer_key
WHERE
  @consented('marketing', customers.customer_key)
  AND NOT COALESCE(customers.is_deleted, FALSE)
