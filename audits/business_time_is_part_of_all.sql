AUDIT (
  name business_time_is_part_of_all
);

/* No time runs backwards, business time is part of the time that passed, and whoever replied is counted. */
SELECT
  ticket_id
FROM @this_model
WHERE
  LEAST(
    first_reply_minutes,
    first_reply_business_minutes,
    first_resolution_minutes,
    full_resolution_minutes,
    full_resolution_business_minutes
  ) < 0
  OR first_reply_business_minutes > first_reply_minutes
  OR full_resolution_business_minutes > full_resolution_minutes
  OR first_resolution_minutes > full_resolution_minutes
  OR (
    agent_replies > 0
  ) <> NOT first_reply_at IS NULL
  OR agents > agent_replies
