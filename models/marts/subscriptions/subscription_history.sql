MODEL (
  name marts.subscription_history,
  kind FULL,
  owner data,
  grain (subscription_id, valid_from),
  description 'What each subscription was worth a month, step by step, from its creation on. What was recorded at the time goes first: (1) its events, each from its own second on; (2) before the first of them, the lines of its invoices, each for the period that it bills; (3) where no line covers, what the first event says was there before it; (4) and where there is no event, the present items, each since its creation. What was read last ends the history: where it differs from the newest step, a step of basis `present` begins when it was read. Live mode only; a subscription without a currency is left out.',
  column_descriptions (
    subscription_id = 'Stripe''s id of the subscription; see marts.subscription_facts.',
    customer_id = 'Customer who subscribed; the subscription itself where there is none.',
    currency = 'ISO 4217 code of the amounts, upper case; never add amounts of different currencies.',
    valid_from = 'Since when it was so, UTC.',
    valid_to = 'Until when, UTC; null for what is so now.',
    basis = 'How it is known: event, invoice, event_before, present, or end (Stripe says when it ended).',
    is_active = 'Whether it counted: active or past due, its trial over, collection not paused, not ended.',
    quantity = 'Units of its items; 0 while it does not count.',
    items_without_price = 'Items worth 0 because they have no price a unit in the currency of the subscription: by tiers, by measured usage, unknown. 0 while it does not count.',
    mrr = 'Price x quantity of its items, a month, before discounts and what is added as tax; in the currency''s main unit, each item rounded to a millionth.',
    known_until = 'When the newest load of subscriptions or events was, UTC; the same in each row.'
  ),
  audits (
    not_null(
      columns := (
        subscription_id,
        customer_id,
        currency,
        valid_from,
        basis,
        is_active,
        mrr,
        known_until
      )
    ),
    unique_combination_of_columns(columns := (subscription_id, valid_from)),
    amount_is_valid(amount := mrr),
    history_is_whole
  )
);

WITH all_subscriptions AS (
  SELECT
    *
  FROM staging.stg_stripe__subscriptions
  WHERE
    is_live
), all_changes AS (
  SELECT
    *
  FROM staging.stg_stripe__subscription_changes
  WHERE
    is_live
), all_events AS (
  SELECT
    *
  FROM staging.stg_stripe__events
  WHERE
    is_live
), held_items AS (
  SELECT
    *
  FROM staging.stg_stripe__subscription_items
  WHERE
    is_live AND NOT is_deleted
), prices AS (
  SELECT
    *
  FROM staging.stg_stripe__prices
  WHERE
    is_live
), period_lines AS (
  SELECT
    *
  FROM staging.stg_stripe__invoice_line_items
  WHERE
    is_live AND NOT is_deleted AND NOT is_proration AND period_start_at < period_end_at
), known AS (
  SELECT
    MAX(loaded_at) AS known_until
  FROM (
    SELECT
      loaded_at
    FROM all_subscriptions
    UNION ALL
    SELECT
      loaded_at
    FROM all_events
  ) AS loads
), ordered AS (
  SELECT
    changes.event_id,
    changes.subscription_id,
    changes.status,
    changes.status_before,
    changes.is_collection_paused,
    changes.is_collection_paused_before,
    changes.items,
    changes.items_before,
    changes.is_creation,
    CASE
      WHEN changes.is_creation
      THEN all_subscriptions.created_at
      ELSE changes.changed_at
    END AS changed_at,
    ROW_NUMBER() OVER (
      PARTITION BY changes.subscription_id
      ORDER BY changes.changed_at, NOT changes.is_creation, changes.event_id
    ) AS number,
    ROW_NUMBER() OVER (
      PARTITION BY changes.subscription_id, CASE
        WHEN changes.is_creation
        THEN all_subscriptions.created_at
        ELSE changes.changed_at
      END
      ORDER BY changes.is_creation, changes.event_id DESC
    ) AS number_from_last
  FROM all_changes AS changes
  JOIN all_subscriptions
    ON all_subscriptions.subscription_id = changes.subscription_id
  WHERE
    changes.has_all_items AND NOT changes.items IS NULL
), subscriptions AS (
  SELECT
    now.subscription_id,
    COALESCE(now.customer_id, now.subscription_id) AS customer_id,
    now.currency,
    now.status,
    now.is_collection_paused,
    now.created_at,
    now.settled_at,
    now.trial_start_at,
    now.trial_end_at,
    CASE
      WHEN NOT now.ended_at IS NULL
      THEN now.ended_at
      WHEN now.is_deleted
      THEN now.deleted_at
      WHEN now.status IN ('canceled', 'incomplete_expired')
      THEN COALESCE(now.canceled_at, now.created_at)
    END AS ended_at,
    COALESCE(first_change.changed_at, now.settled_at) AS recorded_from,
    NOT COALESCE(first_change.status_before, now.status) IN ('incomplete', 'incomplete_expired') AS is_begun,
    COALESCE(
      NOT first_change.status_before IN ('trialing', 'unpaid', 'paused')
      AND NOT first_change.is_collection_paused_before,
      TRUE
    ) AS is_active_before,
    NOT first_change.event_id IS NULL AS has_events
  FROM all_subscriptions AS now
  LEFT JOIN ordered AS first_change
    ON first_change.subscription_id = now.subscription_id AND first_change.number = 1
  WHERE
    NOT now.currency IS NULL
), item_lists AS (
  SELECT
    subscription_id,
    event_id AS state_id,
    'event' AS basis,
    items
  FROM ordered
  WHERE
    number_from_last = 1
  UNION ALL
  SELECT
    subscription_id,
    event_id,
    'event_before',
    items_before
  FROM ordered
  WHERE
    number = 1 AND NOT is_creation
), listed_items AS (
  SELECT
    subscription_id,
    state_id,
    basis,
    UNNEST(items::JSON::JSON[]) AS item
  FROM item_lists
), all_items AS (
  SELECT
    subscription_id,
    state_id,
    basis,
    COALESCE(item ->> '$.price.id', item ->> '$.price', item ->> '$.plan.id') AS price_id,
    COALESCE(item -> '$.price', '{}'::JSON) AS price,
    COALESCE(item -> '$.plan', '{}'::JSON) AS plan,
    (
      item ->> '$.quantity'
    )::BIGINT AS quantity,
    EPOCH_MS((
      item ->> '$.created'
    )::BIGINT * 1000)::TIMESTAMP AS created_at
  FROM listed_items
  UNION ALL
  SELECT
    subscription_id,
    subscription_id,
    'present',
    price_id,
    COALESCE(price::JSON, '{}'::JSON),
    '{}'::JSON,
    quantity,
    created_at
  FROM held_items
), item_prices AS (
  SELECT
    all_items.subscription_id,
    all_items.state_id,
    all_items.basis,
    all_items.quantity,
    all_items.created_at,
    subscriptions.currency,
    COALESCE(
      (
        all_items.price ->> '$.unit_amount_decimal'
      )::DECIMAL(38, 12),
      (
        all_items.price ->> '$.unit_amount'
      )::DECIMAL(38, 12),
      (
        all_items.plan ->> '$.amount_decimal'
      )::DECIMAL(38, 12),
      (
        all_items.plan ->> '$.amount'
      )::DECIMAL(38, 12),
      prices.unit_amount_minor_exact,
      prices.unit_amount_minor::DECIMAL(38, 12)
    ) AS unit_amount_minor,
    UPPER(
      COALESCE(
        all_items.price ->> '$.currency',
        all_items.plan ->> '$.currency',
        prices.currency,
        subscriptions.currency
      )
    ) AS price_currency,
    COALESCE(
      all_items.price ->> '$.billing_scheme',
      all_items.plan ->> '$.billing_scheme',
      prices.billing_scheme,
      'per_unit'
    ) AS billing_scheme,
    COALESCE(
      all_items.price ->> '$.recurring.usage_type',
      all_items.plan ->> '$.usage_type',
      'licensed'
    ) AS usage_type,
    COALESCE(
      all_items.price ->> '$.recurring.interval',
      all_items.plan ->> '$.interval',
      prices.recurring_interval
    ) AS recurring_interval,
    COALESCE(
      (
        all_items.price ->> '$.recurring.interval_count'
      )::BIGINT,
      (
        all_items.plan ->> '$.interval_count'
      )::BIGINT,
      prices.recurring_interval_count,
      1
    ) AS recurring_count
  FROM all_items
  JOIN subscriptions
    ON subscriptions.subscription_id = all_items.subscription_id
  LEFT JOIN prices
    ON prices.price_id = all_items.price_id
), worth AS (
  SELECT
    subscription_id,
    state_id,
    basis,
    created_at,
    COALESCE(quantity, 0) AS quantity,
    CASE
      WHEN price_currency = currency
      AND billing_scheme = 'per_unit'
      AND usage_type = 'licensed'
      THEN @monthly_amount(
        unit_amount_minor * quantity::DECIMAL(18, 0),
        currency,
        recurring_interval,
        recurring_count
      )
    END AS mrr
  FROM item_prices
), state_worth AS (
  SELECT
    subscription_id,
    state_id,
    basis,
    SUM(quantity) AS quantity,
    SUM(mrr) AS mrr,
    COUNT(*) - COUNT(mrr) AS items_without_price
  FROM worth
  GROUP BY
    subscription_id,
    state_id,
    basis
), line_starts AS (
  SELECT
    period_lines.subscription_id,
    subscriptions.created_at AS subscription_created_at,
    period_lines.period_start_at,
    LEAST(
      period_lines.period_end_at,
      LEAD(period_lines.period_start_at) OVER (
        PARTITION BY period_lines.subscription_id, COALESCE(period_lines.subscription_item_id, period_lines.price_id, '')
        ORDER BY period_lines.period_start_at, period_lines.invoice_line_item_id
      )
    ) AS period_end_at,
    period_lines.quantity,
    CASE
      WHEN period_lines.currency = subscriptions.currency
      THEN @monthly_amount(
        period_lines.amount_minor::DECIMAL(38, 12),
        period_lines.currency,
        prices.recurring_interval,
        prices.recurring_interval_count
      )
    END AS mrr
  FROM period_lines
  JOIN subscriptions
    ON subscriptions.subscription_id = period_lines.subscription_id
  LEFT JOIN prices
    ON prices.price_id = period_lines.price_id
), differences AS (
  SELECT
    subscription_id,
    GREATEST(period_start_at, subscription_created_at) AS at,
    1 AS lines,
    COALESCE(mrr, 0) AS line_mrr,
    COALESCE(quantity, 0) AS line_quantity,
    (
      mrr IS NULL
    )::INT AS line_without_price,
    0 AS item_mrr,
    0 AS item_quantity,
    0 AS item_without_price
  FROM line_starts
  WHERE
    period_start_at < period_end_at AND period_end_at > subscription_created_at
  UNION ALL
  SELECT
    subscription_id,
    period_end_at,
    -1,
    -COALESCE(mrr, 0),
    -COALESCE(quantity, 0),
    -(
      mrr IS NULL
    )::INT,
    0,
    0,
    0
  FROM line_starts
  WHERE
    period_start_at < period_end_at AND period_end_at > subscription_created_at
  UNION ALL
  SELECT
    worth.subscription_id,
    GREATEST(worth.created_at, subscriptions.created_at),
    0,
    0,
    0,
    0,
    COALESCE(worth.mrr, 0),
    worth.quantity,
    (
      worth.mrr IS NULL
    )::INT
  FROM worth
  JOIN subscriptions
    ON subscriptions.subscription_id = worth.subscription_id
  WHERE
    worth.basis = CASE WHEN subscriptions.has_events THEN 'event_before' ELSE 'present' END
  UNION ALL
  SELECT
    subscription_id,
    UNNEST([created_at, GREATEST(trial_end_at, created_at)]),
    0,
    0,
    0,
    0,
    0,
    0,
    0
  FROM subscriptions
), running AS (
  SELECT
    subscription_id,
    at,
    SUM(SUM(lines)) OVER so_far AS lines,
    SUM(SUM(line_mrr)) OVER so_far AS line_mrr,
    SUM(SUM(line_quantity)) OVER so_far AS line_quantity,
    SUM(SUM(line_without_price)) OVER so_far AS line_without_price,
    SUM(SUM(item_mrr)) OVER so_far AS item_mrr,
    SUM(SUM(item_quantity)) OVER so_far AS item_quantity,
    SUM(SUM(item_without_price)) OVER so_far AS item_without_price
  FROM differences
  WHERE
    NOT at IS NULL
  GROUP BY
    subscription_id,
    at
  WINDOW so_far AS (PARTITION BY subscription_id ORDER BY at)
), recorded_steps AS (
  SELECT
    running.subscription_id,
    running.at,
    CASE
      WHEN running.lines > 0
      THEN 'invoice'
      WHEN subscriptions.has_events
      THEN 'event_before'
      ELSE 'present'
    END AS basis,
    subscriptions.is_begun
    AND (
      running.lines > 0 OR subscriptions.is_active_before
    )
    AND NOT COALESCE(
      running.at >= COALESCE(subscriptions.trial_start_at, subscriptions.created_at)
      AND running.at < subscriptions.trial_end_at,
      FALSE
    ) AS is_active,
    CASE WHEN running.lines > 0 THEN running.line_mrr ELSE running.item_mrr END AS mrr,
    CASE
      WHEN running.lines > 0
      THEN running.line_quantity
      ELSE running.item_quantity
    END AS quantity,
    CASE
      WHEN running.lines > 0
      THEN running.line_without_price
      ELSE running.item_without_price
    END AS items_without_price
  FROM running
  JOIN subscriptions
    ON subscriptions.subscription_id = running.subscription_id
  WHERE
    running.at < subscriptions.recorded_from
  UNION ALL
  SELECT
    ordered.subscription_id,
    ordered.changed_at,
    'event',
    ordered.status IN ('active', 'past_due') AND NOT ordered.is_collection_paused,
    state_worth.mrr,
    state_worth.quantity,
    state_worth.items_without_price
  FROM ordered
  LEFT JOIN state_worth
    ON state_worth.subscription_id = ordered.subscription_id
    AND state_worth.state_id = ordered.event_id
    AND state_worth.basis = 'event'
  WHERE
    ordered.number_from_last = 1
), counted AS (
  SELECT
    steps.subscription_id,
    steps.at,
    steps.basis,
    steps.is_active,
    CASE WHEN steps.is_active THEN COALESCE(steps.mrr, 0) ELSE 0 END AS mrr,
    CASE WHEN steps.is_active THEN COALESCE(steps.quantity, 0) ELSE 0 END AS quantity,
    CASE WHEN steps.is_active THEN COALESCE(steps.items_without_price, 0) ELSE 0 END AS items_without_price
  FROM recorded_steps AS steps
  JOIN subscriptions
    ON subscriptions.subscription_id = steps.subscription_id
  WHERE
    subscriptions.ended_at IS NULL OR steps.at < subscriptions.ended_at
), newest AS (
  SELECT
    subscription_id,
    MAX(at) AS at,
    ARG_MAX(mrr, at) AS mrr,
    ARG_MAX(is_active, at) AS is_active,
    ARG_MAX(quantity, at) AS quantity,
    ARG_MAX(items_without_price, at) AS items_without_price
  FROM counted
  GROUP BY
    subscription_id
), present AS (
  SELECT
    subscriptions.subscription_id,
    subscriptions.settled_at,
    subscriptions.status IN ('active', 'past_due')
    AND NOT subscriptions.is_collection_paused AS is_active,
    COALESCE(state_worth.mrr, 0) AS mrr,
    COALESCE(state_worth.quantity, 0) AS quantity,
    COALESCE(state_worth.items_without_price, 0) AS items_without_price
  FROM subscriptions
  LEFT JOIN state_worth
    ON state_worth.subscription_id = subscriptions.subscription_id
    AND state_worth.basis = 'present'
  WHERE
    subscriptions.ended_at IS NULL
), steps AS (
  SELECT
    subscription_id,
    at,
    basis,
    is_active,
    mrr,
    quantity,
    items_without_price
  FROM counted
  UNION ALL
  SELECT
    present.subscription_id,
    GREATEST(present.settled_at, newest.at + INTERVAL '1' MICROSECOND),
    'present',
    present.is_active,
    CASE WHEN present.is_active THEN present.mrr ELSE 0 END,
    CASE WHEN present.is_active THEN present.quantity ELSE 0 END,
    CASE WHEN present.is_active THEN present.items_without_price ELSE 0 END
  FROM present
  LEFT JOIN newest
    ON newest.subscription_id = present.subscription_id
  WHERE
    newest.subscription_id IS NULL
    OR newest.is_active <> present.is_active
    OR (
      present.is_active
      AND (
        newest.mrr <> present.mrr
        OR newest.quantity <> present.quantity
        OR newest.items_without_price <> present.items_without_price
      )
    )
  UNION ALL
  SELECT
    subscription_id,
    ended_at,
    'end',
    FALSE,
    0,
    0,
    0
  FROM subscriptions
  WHERE
    NOT ended_at IS NULL
)
SELECT
  steps.subscription_id::TEXT AS subscription_id,
  subscriptions.customer_id::TEXT AS customer_id,
  subscriptions.currency::TEXT AS currency,
  steps.at::TIMESTAMP AS valid_from,
  (
    LEAD(steps.at) OVER (PARTITION BY steps.subscription_id ORDER BY steps.at)
  )::TIMESTAMP AS valid_to,
  steps.basis::TEXT AS basis,
  steps.is_active::BOOLEAN AS is_active,
  steps.quantity::BIGINT AS quantity,
  steps.items_without_price::BIGINT AS items_without_price,
  steps.mrr::DECIMAL(38, 6) AS mrr,
  known.known_until::TIMESTAMP AS known_until
FROM steps
JOIN subscriptions
  ON subscriptions.subscription_id = steps.subscription_id
CROSS JOIN known
