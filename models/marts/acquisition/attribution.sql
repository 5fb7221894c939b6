MODEL (
  name marts.attribution,
  kind FULL,
  owner data,
  grain order_id,
  references user_id,
  description 'Where the orders came from that Google Analytics saw, one row each: the last click that was not direct, at most 30 days before. An order that is not here was placed without consent, past a blocker, or on a day that was not loaded: nothing is known of it.',
  column_descriptions (
    order_id = 'Key of the order; see marts.order_facts. Google knows it as the transaction id.',
    user_id = 'Key of the user who ordered.',
    ordered_at = 'When the order was placed, UTC.',
    is_first_order = 'Whether it is the first order of the user, among all that production has.',
    revenue = 'Price of the whole order as production states it, in its currency.',
    currency = 'ISO 4217 code of the revenue; never add revenues of different currencies.',
    property_id = 'Property of Google Analytics that saw the order.',
    source = 'Where the click came from, for example google; (direct) where there was none.',
    medium = 'How it came, for example organic or cpc.',
    campaign = 'Campaign of the click; (not set) where there is none.',
    channel = 'Google''s own grouping of sources and mediums.',
    basis = 'session: the visit of the order says it; earlier_order: that visit was direct, and the one in which the user ordered before, at most 30 days ago, says it; direct: neither does; unknown: Google does not tell.',
    credited_order_id = 'The order whose visit says it: this one, or the one before.'
  ),
  audits (
    not_null(
      columns := (order_id, user_id, is_first_order, source, medium, campaign, channel, basis)
    ),
    unique_values(columns := order_id),
    credit_is_given_once
  )
);

/* Google may see an order twice, on a page that is loaded again: the first time counts. */
WITH seen AS (
  SELECT
    property_id,
    transaction_id,
    COALESCE(session_source, '(not set)') AS source,
    COALESCE(session_medium, '(not set)') AS medium,
    COALESCE(session_campaign_name, '(not set)') AS campaign,
    COALESCE(session_default_channel_group, '(not set)') AS channel,
    ROW_NUMBER() OVER (
      PARTITION BY transaction_id
      ORDER BY date, session_source = '(direct)', session_source, session_medium, session_campaign_name, property_id, row_id
    ) AS place
  FROM staging.stg_google_analytics__transactions
  WHERE
    transactions > 0
), visits AS (
  SELECT
    orders.order_id,
    orders.user_id,
    orders.ordered_at,
    orders.revenue,
    orders.currency,
    seen.property_id,
    seen.source,
    seen.medium,
    seen.campaign,
    seen.channel,
    CASE
      WHEN seen.source = '(direct)'
      THEN 'direct'
      WHEN seen.source IN ('(not set)', '(other)')
      THEN 'unknown'
      ELSE 'session'
    END AS basis
  FROM seen
  INNER JOIN marts.order_facts AS orders
    ON orders.order_id::TEXT = seen.transaction_id
  WHERE
    seen.place = 1
), firsts AS (
  SELECT
    orders.user_id,
    ARG_MIN(orders.order_id, (orders.ordered_at, orders.order_id)) AS order_id
  FROM marts.order_facts AS orders
  WHERE
    orders.user_id IN (
      SELECT
        user_id
      FROM visits
    )
  GROUP BY
    orders.user_id
), looked_back AS (
  SELECT
    order_id,
    ordered_at,
    LAST_VALUE(CASE WHEN basis = 'session' THEN order_id END IGNORE NULLS) OVER (
      PARTITION BY user_id
      ORDER BY ordered_at, order_id
      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS earlier_order_id
  FROM visits
), credited AS (
  SELECT
    visits.order_id,
    visits.user_id,
    visits.ordered_at,
    visits.revenue,
    visits.currency,
    visits.property_id,
    CASE WHEN NOT earlier.order_id IS NULL THEN 'earlier_order' ELSE visits.basis END AS basis,
    COALESCE(earlier.order_id, visits.order_id) AS credited_order_id
  FROM visits
  INNER JOIN looked_back
    ON looked_back.order_id = visits.order_id
  LEFT JOIN visits AS earlier
    ON visits.basis = 'direct'
    AND earlier.order_id = looked_back.earlier_order_id
    AND earlier.ordered_at >= visits.ordered_at - INTERVAL '30' DAY
)
SELECT
  credited.order_id::BIGINT AS order_id,
  credited.user_id::BIGINT AS user_id,
  credited.ordered_at::TIMESTAMP AS ordered_at,
  (
    firsts.order_id = credited.order_id
  )::BOOLEAN AS is_first_order,
  credited.revenue::DECIMAL(12, 2) AS revenue,
  credited.currency::TEXT AS currency,
  credited.property_id::TEXT AS property_id,
  clicks.source::TEXT AS source,
  clicks.medium::TEXT AS medium,
  clicks.campaign::TEXT AS campaign,
  clicks.channel::TEXT AS channel,
  credited.basis::TEXT AS basis,
  credited.credited_order_id::BIGINT AS credited_order_id
FROM credited
INNER JOIN visits AS clicks
  ON clicks.order_id = credited.credited_order_id
INNER JOIN firsts
  ON firsts.user_id = credited.user_id
