AUDIT (
  name totals_match_tickets_and_orders
);

/* Over all days there are as many tickets, first replies, ratings and orders as in the facts. */
WITH here AS (
  SELECT
    COALESCE(SUM(tickets), 0) AS tickets,
    COALESCE(SUM(first_replies), 0) AS first_replies,
    COALESCE(SUM(rated_good), 0) AS rated_good,
    COALESCE(SUM(rated_bad), 0) AS rated_bad,
    COALESCE(SUM(orders), 0) AS orders
  FROM @this_model
), facts AS (
  SELECT
    COUNT(*) AS tickets,
    COUNT(first_reply_at) AS first_replies,
    COUNT(*) FILTER(WHERE
      satisfaction = 'good') AS rated_good,
    COUNT(*) FILTER(WHERE
      satisfaction = 'bad') AS rated_bad
  FROM marts.ticket_facts
  WHERE
    NOT is_deleted
), ordered AS (
  SELECT
    COUNT(*) AS orders
  FROM marts.order_facts
)
SELECT
  here.tickets
FROM here
CROSS JOIN facts
CROSS JOIN ordered
WHERE
  here.tickets <> facts.tickets
  OR here.first_replies <> facts.first_replies
  OR here.rated_good <> facts.rated_good
  OR here.rated_bad <> facts.rated_bad
  OR here.orders <> ordered.orders
