AUDIT (
  name customers_hold_everything
);

/* The customers together have every order, and every ticket, dispute and subscription of a known person who is no staff, each once; amounts of all currencies add up to those of the facts. */
WITH listed AS (
  SELECT
    customer_key,
    UNNEST(amounts::JSON::JSON[]) AS amount
  FROM @this_model
), sums AS (
  SELECT
    amount ->> '$.currency' AS currency,
    SUM((
      amount ->> '$.orders'
    )::BIGINT) AS orders,
    SUM((
      amount ->> '$.revenue'
    )::DECIMAL(38, 2)) AS revenue,
    SUM((
      amount ->> '$.payments'
    )::DECIMAL(38, 3)) AS payments,
    SUM((
      amount ->> '$.mrr'
    )::DECIMAL(38, 6)) AS mrr
  FROM listed
  GROUP BY
    1
), facts AS (
  SELECT
    currency,
    SUM(orders) AS orders,
    SUM(revenue) AS revenue,
    SUM(payments) AS payments,
    SUM(mrr) AS mrr
  FROM (
    SELECT
      currency,
      1 AS orders,
      revenue,
      0 AS payments,
      0 AS mrr
    FROM marts.order_facts
    UNION ALL
    SELECT
      payments.currency,
      0,
      0,
      payments.net_amount,
      0
    FROM marts.payment_facts AS payments
    JOIN marts.identity_map AS identities
      ON identities.source = 'stripe' AND identities.source_key = payments.customer_id
    WHERE
      payments.status = 'succeeded'
    UNION ALL
    SELECT
      subscriptions.currency,
      0,
      0,
      0,
      subscriptions.mrr
    FROM marts.subscription_facts AS subscriptions
    JOIN marts.identity_map AS identities
      ON identities.source = 'stripe'
      AND identities.source_key = subscriptions.customer_id
    WHERE
      subscriptions.is_active
  ) AS each
  GROUP BY
    currency
), counted AS (
  SELECT
    SUM(orders) AS orders,
    SUM(tickets) AS tickets,
    SUM(disputes) AS disputes
  FROM @this_model
), due AS (
  SELECT
    (
      SELECT
        COUNT(*)
      FROM marts.order_facts
    ) AS orders,
    (
      SELECT
        COUNT(*)
      FROM staging.stg_zendesk__tickets AS tickets
      JOIN marts.identity_map AS identities
        ON identities.source = 'zendesk'
        AND identities.source_key = tickets.requester_id::TEXT
      WHERE
        NOT tickets.is_deleted
        AND identities.customer_key IN (
          SELECT
            customer_key
          FROM marts.identity_map
          WHERE
            NOT is_staff
        )
    ) AS tickets,
    (
      SELECT
        COUNT(*)
      FROM marts.dispute_facts AS disputes
      JOIN marts.identity_map AS identities
        ON identities.source = 'stripe' AND identities.source_key = disputes.customer_id
    ) AS disputes
)
SELECT
  COALESCE(sums.currency, facts.currency) AS currency
FROM sums
FULL OUTER JOIN facts
  ON facts.currency = sums.currency
WHERE
  sums.orders IS DISTINCT FROM facts.orders
  OR sums.revenue IS DISTINCT FROM facts.revenue
  OR sums.payments IS DISTINCT FROM facts.payments
  OR sums.mrr IS DISTINCT FROM facts.mrr
UNION ALL
SELECT
  NULL AS currency
FROM counted
CROSS JOIN due
WHERE
  COALESCE(counted.orders, 0) <> due.orders
  OR COALESCE(counted.tickets, 0) <> due.tickets
  OR COALESCE(counted.disputes, 0) <> due.disputes
