MODEL (
  name marts.support_daily,
  kind FULL,
  owner data,
  grain date,
  description 'Contact rate, replies and satisfaction, one row a day on which a ticket came in, was first answered or was rated, or an order was placed. Deleted tickets are left out. For a longer time add up the counts and divide: rates and medians of days must not be averaged.',
  column_descriptions (
    date = 'Day in the report''s time zone, for orders as well.',
    tickets = 'Tickets that came in.',
    orders = 'Orders placed, see marts.order_facts.',
    contact_rate = 'Tickets that came in divided by orders placed; null without orders.',
    first_replies = 'Tickets that got their first reply on this day, whenever they came in.',
    median_first_reply_minutes = 'Half of these first replies came within so many minutes; null without any.',
    replies_in_time = 'Of these, those that kept what was promised.',
    replies_late = 'Of these, those that did not; the others were promised nothing.',
    rated_good = 'Tickets whose last rating was given on this day and is good.',
    rated_bad = 'Tickets whose last rating was given on this day and is bad.',
    satisfaction_rate = 'Good ratings divided by all ratings, 0 to 1 (CSAT); null without any.'
  ),
  audits (
    not_null(
      columns := (
        date,
        tickets,
        orders,
        first_replies,
        replies_in_time,
        replies_late,
        rated_good,
        rated_bad
      )
    ),
    unique_values(columns := date),
    totals_match_tickets_and_orders
  )
);

WITH happened AS (
  SELECT
    created_date AS date,
    1 AS tickets,
    0 AS orders,
    0 AS first_replies,
    NULL::BIGINT AS first_reply_minutes,
    0 AS replies_in_time,
    0 AS replies_late,
    0 AS rated_good,
    0 AS rated_bad
  FROM marts.ticket_facts
  WHERE
    NOT is_deleted
  UNION ALL
  SELECT
    @report_date(first_reply_at),
    0,
    0,
    1,
    first_reply_minutes,
    CASE WHEN is_reply_in_time THEN 1 ELSE 0 END,
    CASE WHEN NOT is_reply_in_time THEN 1 ELSE 0 END,
    0,
    0
  FROM marts.ticket_facts
  WHERE
    NOT is_deleted AND NOT first_reply_at IS NULL
  UNION ALL
  SELECT
    @report_date(rated_at),
    0,
    0,
    0,
    NULL,
    0,
    0,
    CASE WHEN satisfaction = 'good' THEN 1 ELSE 0 END,
    CASE WHEN satisfaction = 'bad' THEN 1 ELSE 0 END
  FROM marts.ticket_facts
  WHERE
    NOT is_deleted AND NOT rated_at IS NULL
  UNION ALL
  SELECT
    @report_date(ordered_at),
    0,
    COUNT(*),
    0,
    NULL,
    0,
    0,
    0,
    0
  FROM marts.order_facts
  GROUP BY
    @report_date(ordered_at)
), summed AS (
  SELECT
    date,
    SUM(tickets) AS tickets,
    SUM(orders) AS orders,
    SUM(first_replies) AS first_replies,
    MEDIAN(first_reply_minutes) AS median_first_reply_minutes,
    SUM(replies_in_time) AS replies_in_time,
    SUM(replies_late) AS replies_late,
    SUM(rated_good) AS rated_good,
    SUM(rated_bad) AS rated_bad
  FROM happened
  GROUP BY
    date
)
SELECT
  date::DATE AS date,
  tickets::BIGINT AS tickets,
  orders::BIGINT AS orders,
  ROUND((
    tickets / NULLIF(orders, 0)
  )::DECIMAL(38, 12), 6)::DECIMAL(18, 6) AS contact_rate,
  first_replies::BIGINT AS first_replies,
  median_first_reply_minutes::DECIMAL(18, 1) AS median_first_reply_minutes,
  replies_in_time::BIGINT AS replies_in_time,
  replies_late::BIGINT AS replies_late,
  rated_good::BIGINT AS rated_good,
  rated_bad::BIGINT AS rated_bad,
  ROUND((
    rated_good / NULLIF(rated_good + rated_bad, 0)
  )::DECIMAL(38, 12), 6)::DECIMAL(9, 6) AS satisfaction_rate
FROM summed
