MODEL (
  name marts.customer_360,
  kind FULL,
  owner data,
  grain customer_key,
  references user_id,
  depends_on (
    marts.order_facts
  ),
  description 'Every customer of every source, one row each, with what the whole company knows: orders, payments, subscriptions, disputes, tickets. Amounts are of one currency, the customer''s main one; `amounts` has all of them, and nothing is ever added over currencies. Agents of the help desk who never bought are left out, as are payments of guests, whom nobody knows.',
  column_descriptions (
    customer_key = 'The customer; marts.identity_map says which persons of which source that is.',
    user_id = 'The production user; see marts.user_dim. Null where the customer is none.',
    stripe_customers = 'Number of Stripe customers that the customer is.',
    zendesk_users = 'Number of Zendesk users that the customer is.',
    is_deleted = 'Whether every source that knows the customer has deleted it.',
    signup_date = 'UTC day on which the production user signed up.',
    country = 'ISO 3166-1 alpha-2 code of the country of the production user.',
    segment = 'Kind of customer: consumer, small_business or enterprise.',
    orders = 'Number of orders, in all currencies.',
    first_order_date = 'UTC day of the first order.',
    last_order_date = 'UTC day of the last order.',
    currencies = 'Number of currencies with an order, a payment or MRR.',
    currency = 'ISO 4217 code of the main currency, in which the amounts are: that of most orders, then of most payments, then of an MRR, then the first by name.',
    revenue = 'Revenue of the orders in the main currency: historical lifetime value by orders.',
    margin = 'Revenue times the declared share gross_margin; null where none is declared.',
    payments = 'What was taken through Stripe in the main currency and not given back. Orders and payments are two accounts of the same sales: never add them.',
    mrr = 'What the active subscriptions in the main currency are worth a month now.',
    predicted_revenue = 'Expected revenue in the main currency in the days ahead; see marts.customer_predictions.',
    amounts = 'Every currency with its amounts, a JSON list of currency, orders, revenue, payments and mrr in the order of the main currency; amounts as text, exact.',
    active_subscriptions = 'Number of subscriptions that count now.',
    disputes = 'Number of disputes, whatever came of them.',
    open_disputes = 'Number of disputes and inquiries that are not decided.',
    tickets = 'Number of tickets asked by the customer, deleted ones left out.',
    open_tickets = 'Number of them that are neither solved nor closed.',
    last_seen_at = 'When the customer last ordered, tried to pay or opened a ticket, UTC.',
    probability_alive = 'Highest probability, 0 to 1, over currencies that the customer will ever buy again; see marts.customer_predictions.',
    status = 'active: a customer in at least one way now; churned: was one, and is gone in every way (marts.churned_customers); paid: has only paid through Stripe, without an order or a subscription, of which no rule says when it is over; prospect: none of these.'
  ),
  audits (
    not_null(
      columns := (customer_key, orders, tickets, disputes, active_subscriptions, status)
    ),
    unique_values(columns := customer_key),
    customers_hold_everything
  )
);

WITH identities AS (
  SELECT
    *
  FROM marts.identity_map
), tickets AS (
  SELECT
    *
  FROM staging.stg_zendesk__tickets
  WHERE
    NOT is_deleted
), persons AS (
  SELECT
    customer_key,
    MAX(user_id) AS user_id,
    COUNT(*) FILTER(WHERE
      source = 'stripe') AS stripe_customers,
    COUNT(*) FILTER(WHERE
      source = 'zendesk') AS zendesk_users,
    BOOL_AND(is_deleted::BOOLEAN) AS is_deleted
  FROM identities
  GROUP BY
    customer_key
  HAVING
    NOT BOOL_AND(is_staff::BOOLEAN)
), amounts_of_each AS (
  SELECT
    identities.customer_key,
    lifetime.currency,
    lifetime.orders,
    lifetime.revenue,
    lifetime.margin,
    0 AS charges,
    0 AS payments,
    0 AS mrr,
    0 AS subscriptions,
    predicted.predicted_revenue,
    predicted.probability_alive,
    lifetime.first_order_date,
    lifetime.last_order_date
  FROM marts.customer_lifetime_value AS lifetime
  JOIN identities
    ON identities.source = 'postgres' AND identities.user_id = lifetime.user_id
  LEFT JOIN marts.customer_predictions AS predicted
    ON predicted.user_id = lifetime.user_id AND predicted.currency = lifetime.currency
  UNION ALL
  SELECT
    identities.customer_key,
    payments.currency,
    0,
    0,
    NULL,
    1,
    payments.net_amount,
    0,
    0,
    NULL,
    NULL,
    NULL,
    NULL
  FROM marts.payment_facts AS payments
  JOIN identities
    ON identities.source = 'stripe' AND identities.source_key = payments.customer_id
  WHERE
    payments.status = 'succeeded'
  UNION ALL
  SELECT
    identities.customer_key,
    subscriptions.currency,
    0,
    0,
    NULL,
    0,
    0,
    subscriptions.mrr,
    1,
    NULL,
    NULL,
    NULL,
    NULL
  FROM marts.subscription_facts AS subscriptions
  JOIN identities
    ON identities.source = 'stripe'
    AND identities.source_key = subscriptions.customer_id
  WHERE
    subscriptions.is_active
), by_currency AS (
  SELECT
    customer_key,
    currency,
    SUM(orders) AS orders,
    SUM(revenue) AS revenue,
    SUM(margin) AS margin,
    SUM(charges) AS charges,
    SUM(payments)::DECIMAL(38, 3) AS payments,
    SUM(mrr)::DECIMAL(38, 6) AS mrr,
    SUM(subscriptions) AS subscriptions,
    SUM(predicted_revenue) AS predicted_revenue,
    MAX(probability_alive) AS probability_alive,
    MIN(first_order_date) AS first_order_date,
    MAX(last_order_date) AS last_order_date,
    ROW_NUMBER() OVER (
      PARTITION BY customer_key
      ORDER BY SUM(orders) DESC, SUM(charges) DESC, SUM(mrr) > 0 DESC, currency
    ) AS number
  FROM amounts_of_each
  GROUP BY
    customer_key,
    currency
), sold AS (
  SELECT
    customer_key,
    SUM(orders) AS orders,
    MIN(first_order_date) AS first_order_date,
    MAX(last_order_date) AS last_order_date,
    COUNT(*) AS currencies,
    MAX(currency) FILTER(WHERE
      number = 1) AS currency,
    MAX(revenue) FILTER(WHERE
      number = 1) AS revenue,
    MAX(margin) FILTER(WHERE
      number = 1) AS margin,
    MAX(payments) FILTER(WHERE
      number = 1) AS payments,
    MAX(mrr) FILTER(WHERE
      number = 1) AS mrr,
    MAX(predicted_revenue) FILTER(WHERE
      number = 1) AS predicted_revenue,
    LISTAGG(
      
        CONCAT(
          '{"currency":"',
          currency,
          '","orders":',
          orders,
          ',"revenue":"',
          revenue,
          '","payments":"',
          payments,
          '","mrr":"',
          mrr,
          '"}'
        ),
        ','
      
      ORDER BY
        number
    ) AS amounts,
    SUM(subscriptions) AS active_subscriptions,
    SUM(charges) AS charges,
    MAX(probability_alive) AS probability_alive
  FROM by_currency
  GROUP BY
    customer_key
), seen_each AS (
  SELECT
    identities.customer_key,
    orders.ordered_at AS seen_at,
    0 AS tickets,
    0 AS open_tickets,
    0 AS disputes,
    0 AS open_disputes
  FROM marts.order_facts AS orders
  JOIN identities
    ON identities.source = 'postgres' AND identities.user_id = orders.user_id
  UNION ALL
  SELECT
    identities.customer_key,
    payments.created_at,
    0,
    0,
    0,
    0
  FROM marts.payment_facts AS payments
  JOIN identities
    ON identities.source = 'stripe' AND identities.source_key = payments.customer_id
  UNION ALL
  SELECT
    identities.customer_key,
    tickets.created_at,
    1,
    NOT tickets.status IN ('solved', 'closed'),
    0,
    0
  FROM tickets
  JOIN identities
    ON identities.source = 'zendesk'
    AND identities.source_key = tickets.requester_id::TEXT
  UNION ALL
  SELECT
    identities.customer_key,
    NULL,
    0,
    0,
    1,
    NOT disputes.status IN ('won', 'lost', 'warning_closed')
  FROM marts.dispute_facts AS disputes
  JOIN identities
    ON identities.source = 'stripe' AND identities.source_key = disputes.customer_id
), seen AS (
  SELECT
    customer_key,
    MAX(seen_at) AS last_seen_at,
    SUM(tickets) AS tickets,
    SUM(open_tickets) AS open_tickets,
    SUM(disputes) AS disputes,
    SUM(open_disputes) AS open_disputes
  FROM seen_each
  GROUP BY
    customer_key
), gone AS (
  SELECT
    customer_key,
    COUNT(*) FILTER(WHERE
      kind = 'orders') > 0 AS is_gone_as_buyer,
    COUNT(*) FILTER(WHERE
      kind = 'subscription') > 0 AS is_gone_as_subscriber
  FROM marts.churned_customers
  GROUP BY
    customer_key
)
SELECT
  persons.customer_key::TEXT AS customer_key,
  persons.user_id::BIGINT AS user_id,
  persons.stripe_customers::BIGINT AS stripe_customers,
  persons.zendesk_users::BIGINT AS zendesk_users,
  persons.is_deleted::BOOLEAN AS is_deleted,
  users.signup_date::DATE AS signup_date,
  users.country::TEXT AS country,
  users.segment::TEXT AS segment,
  COALESCE(sold.orders, 0)::BIGINT AS orders,
  sold.first_order_date::DATE AS first_order_date,
  sold.last_order_date::DATE AS last_order_date,
  COALESCE(sold.currencies, 0)::BIGINT AS currencies,
  sold.currency::TEXT AS currency,
  sold.revenue::DECIMAL(18, 2) AS revenue,
  sold.margin::DECIMAL(18, 2) AS margin,
  sold.payments::DECIMAL(38, 3) AS payments,
  sold.mrr::DECIMAL(38, 6) AS mrr,
  sold.predicted_revenue::DECIMAL(18, 2) AS predicted_revenue,
  CONCAT('[', sold.amounts, ']')::TEXT AS amounts,
  COALESCE(sold.active_subscriptions, 0)::BIGINT AS active_subscriptions,
  COALESCE(seen.disputes, 0)::BIGINT AS disputes,
  COALESCE(seen.open_disputes, 0)::BIGINT AS open_disputes,
  COALESCE(seen.tickets, 0)::BIGINT AS tickets,
  COALESCE(seen.open_tickets, 0)::BIGINT AS open_tickets,
  seen.last_seen_at::TIMESTAMP AS last_seen_at,
  sold.probability_alive::DOUBLE AS probability_alive,
  CASE
    WHEN sold.active_subscriptions > 0
    OR (
      sold.orders > 0 AND NOT COALESCE(gone.is_gone_as_buyer, FALSE)
    )
    THEN 'active'
    WHEN sold.orders > 0 OR COALESCE(gone.is_gone_as_subscriber, FALSE)
    THEN 'churned'
    WHEN sold.charges > 0
    THEN 'paid'
    ELSE 'prospect'
  END::TEXT AS status
FROM persons
LEFT JOIN sold
  ON sold.customer_key = persons.customer_key
LEFT JOIN seen
  ON seen.customer_key = persons.customer_key
LEFT JOIN gone
  ON gone.customer_key = persons.customer_key
LEFT JOIN marts.user_dim AS users
  ON users.user_id = persons.user_id
