AUDIT (
  name credit_is_given_once
);

/* Each order that Google Analytics saw is here once, at its price, and no click is credited that came later or more than 30 days before. */
SELECT
  COALESCE(here.order_id, seen.order_id) AS order_id
FROM @this_model AS here
FULL OUTER JOIN (
  SELECT DISTINCT
    orders.order_id,
    orders.revenue,
    orders.currency
  FROM staging.stg_google_analytics__transactions AS transactions
  INNER JOIN marts.order_facts AS orders
    ON orders.order_id::TEXT = transactions.transaction_id
  WHERE
    transactions.transactions > 0
) AS seen
  ON seen.order_id = here.order_id
LEFT JOIN @this_model AS credited
  ON credited.order_id = here.credited_order_id
WHERE
  here.order_id IS NULL
  OR seen.order_id IS NULL
  OR here.revenue <> seen.revenue
  OR here.currency <> seen.currency
  OR credited.order_id IS NULL
  OR credited.user_id <> here.user_id
  OR credited.ordered_at > here.ordered_at
  OR credited.ordered_at < here.ordered_at - INTERVAL '30' DAY
