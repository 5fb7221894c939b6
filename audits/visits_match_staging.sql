AUDIT (
  name visits_match_staging
);

/* Each day of each property has the rows, visits, new users, purchases and revenue that staging has. */
WITH here AS (
  SELECT
    property_id,
    date,
    COUNT(*) AS found,
    SUM(sessions) AS sessions,
    SUM(new_users) AS new_users,
    SUM(transactions) AS transactions,
    SUM(revenue) AS revenue
  FROM @this_model
  GROUP BY
    property_id,
    date
), staged AS (
  SELECT
    property_id,
    date,
    COUNT(*) AS found,
    COALESCE(SUM(sessions), 0) AS sessions,
    COALESCE(SUM(new_users), 0) AS new_users,
    COALESCE(SUM(transactions), 0) AS transactions,
    SUM(purchase_revenue) AS revenue
  FROM staging.stg_google_analytics__acquisition
  GROUP BY
    property_id,
    date
)
SELECT
  COALESCE(here.date, staged.date) AS date
FROM here
FULL OUTER JOIN staged
  ON staged.property_id = here.property_id AND staged.date = here.date
WHERE
  here.found IS DISTINCT FROM staged.found
  OR here.sessions <> staged.sessions
  OR here.new_users <> staged.new_users
  OR here.transactions <> staged.transactions
  OR here.revenue IS DISTINCT FROM staged.revenue
