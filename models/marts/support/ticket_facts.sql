MODEL (
  name marts.ticket_facts,
  kind FULL,
  owner data,
  grain ticket_id,
  description 'Every ticket of Zendesk, one row each, deleted ones among them: leave those out by is_deleted wherever requests of customers are counted. Minutes are whole ones, a minute begun does not count; business minutes are those in which the ticket''s schedule was open, null where no schedule is held. docs/metrics/support.md defines every figure.',
  column_descriptions (
    ticket_id = 'Key of the ticket in Zendesk.',
    requester_id = 'User of Zendesk who asked; see staging.stg_zendesk__users. Meaningless once a deleted ticket was scrubbed.',
    assignee_id = 'Agent who has the ticket now; null when nobody does.',
    organization_id = 'Organization that the requester belongs to.',
    group_id = 'Group of agents that has the ticket now.',
    brand_id = 'Brand that was asked.',
    status = 'new, open, pending, hold, solved or closed; of a deleted ticket the last one.',
    priority = 'low, normal, high or urgent; null when not set.',
    ticket_type = 'question, incident, problem or task; null when not set.',
    channel = 'How the ticket came in, for example email or web.',
    created_at = 'When the ticket was opened, UTC.',
    created_date = 'Day on which it was opened, in the report''s time zone.',
    updated_at = 'When the ticket last changed by an event, UTC.',
    first_reply_at = 'When an agent first answered in public, UTC; null while nobody did.',
    first_reply_by = 'Agent who wrote that answer.',
    first_reply_minutes = 'Whole minutes from the opening to the first reply.',
    first_reply_business_minutes = 'Those of them in business hours.',
    agent_replies = 'Public comments of agents after the opening.',
    agents = 'How many different agents wrote them.',
    first_solved_at = 'When it was first solved, UTC.',
    solved_at = 'When it was last solved, UTC; null while it is open, again or still.',
    first_resolution_minutes = 'Whole minutes from the opening until it was first solved.',
    full_resolution_minutes = 'Whole minutes from the opening until it was last solved.',
    full_resolution_business_minutes = 'Those of them in business hours.',
    reopens = 'How often it was opened again after it was solved.',
    reply_target_minutes = 'Minutes promised for the first reply, as they stood when the reply came or, without one, stand now; null without a promise.',
    is_reply_target_in_business_hours = 'Whether the promise counts business hours alone.',
    is_reply_in_time = 'Whether the first reply kept the promise; false also when it is overdue, null while it still may come or where nothing was promised.',
    satisfaction = 'good or bad, as the requester rated the ticket last; null without a rating.',
    rated_at = 'When the requester gave that rating, UTC.',
    is_deleted = 'Whether the ticket was deleted.',
    deleted_at = 'When it was deleted, UTC; null while it is there.',
    loaded_at = 'When this version of the ticket was loaded, UTC.'
  ),
  audits (
    not_null(
      columns := (ticket_id, created_at, created_date, agent_replies, reopens, is_deleted)
    ),
    unique_values(columns := ticket_id),
    business_time_is_part_of_all,
    tickets_match_staging
  )
);

WITH tickets AS (
  SELECT
    *
  FROM staging.stg_zendesk__tickets
), newest AS (
  SELECT
    MAX(loaded_at) AS known_until
  FROM tickets
), agents AS (
  /* Who is an agent now, and who once was: Zendesk makes an agent who leaves an end user, but only agents are given tickets. */
  SELECT
    user_id
  FROM staging.stg_zendesk__users
  WHERE
    role IN ('agent', 'admin')
  UNION
  SELECT
    assignee_id
  FROM tickets
  UNION
  SELECT
    TRY_CAST(value AS BIGINT)
  FROM staging.stg_zendesk__ticket_field_history
  WHERE
    field = 'assignee_id'
), comments AS (
  SELECT
    comment_id,
    ticket_id,
    author_id,
    is_public,
    commented_at,
    ROW_NUMBER() OVER (PARTITION BY ticket_id ORDER BY commented_at, comment_id) AS place
  FROM staging.stg_zendesk__ticket_comments
), replies AS (
  /* The comment that opens a ticket is no reply, whoever wrote it. */
  SELECT
    comments.ticket_id,
    MIN(comments.commented_at) AS first_reply_at,
    ARG_MIN(comments.author_id, comments.place) AS first_reply_by,
    COUNT(*) AS agent_replies,
    COUNT(DISTINCT comments.author_id) AS agents
  FROM comments
  INNER JOIN tickets
    ON tickets.ticket_id = comments.ticket_id
  INNER JOIN agents
    ON agents.user_id = comments.author_id
  WHERE
    comments.is_public
    AND comments.author_id <> tickets.requester_id
    AND (
      comments.place > 1 OR comments.commented_at > tickets.created_at
    )
  GROUP BY
    comments.ticket_id
), solutions AS (
  SELECT
    ticket_id,
    MIN(valid_from) FILTER(WHERE
      state = 'solved') AS first_solved_at,
    CASE
      WHEN MAX(step) FILTER(WHERE
        state = 'solved') > COALESCE(MAX(step) FILTER(WHERE
        state = 'open'), 0)
      THEN MAX(valid_from) FILTER(WHERE
        state = 'solved' AND COALESCE(previous_state, 'open') = 'open')
    END AS solved_at,
    COUNT(*) FILTER(WHERE
      state = 'open' AND previous_state = 'solved') AS reopens
  FROM marts.ticket_status_history
  GROUP BY
    ticket_id
), spans AS (
  /* What is measured of each ticket; a reply that did not come is waited for until the ticket was solved or deleted, or until now. */
  SELECT
    tickets.ticket_id,
    replies.first_reply_at,
    replies.first_reply_by,
    COALESCE(replies.agent_replies, 0) AS agent_replies,
    COALESCE(replies.agents, 0) AS agents,
    solutions.first_solved_at,
    solutions.solved_at,
    COALESCE(solutions.reopens, 0) AS reopens,
    GREATEST(
      tickets.created_at,
      COALESCE(
        replies.first_reply_at,
        solutions.first_solved_at,
        tickets.deleted_at,
        newest.known_until
      )
    ) AS waited_until
  FROM tickets
  CROSS JOIN newest
  LEFT JOIN replies
    ON replies.ticket_id = tickets.ticket_id
  LEFT JOIN solutions
    ON solutions.ticket_id = tickets.ticket_id
), schedules AS (
  SELECT
    schedule_id,
    MIN(created_at) AS created_at,
    CASE WHEN COUNT(valid_to) = COUNT(*) THEN MAX(valid_to) END AS ended_at
  FROM marts.schedule_history
  GROUP BY
    schedule_id
), given AS (
  /* The oldest schedule that was there counts until the ticket is given another one. */
  SELECT
    tickets.ticket_id,
    ARG_MIN(
      schedules.schedule_id,
      (COALESCE(schedules.created_at, '1970-01-01'::TIMESTAMP), schedules.schedule_id)
    ) AS schedule_id,
    tickets.created_at AS valid_from,
    0 AS change_id
  FROM tickets
  LEFT JOIN schedules
    ON COALESCE(schedules.ended_at, '9999-12-31'::TIMESTAMP) > tickets.created_at
  GROUP BY
    tickets.ticket_id,
    tickets.created_at
  UNION ALL
  SELECT
    history.ticket_id,
    TRY_CAST(history.value AS BIGINT),
    GREATEST(history.changed_at, tickets.created_at),
    history.change_id
  FROM staging.stg_zendesk__ticket_field_history AS history
  INNER JOIN tickets
    ON tickets.ticket_id = history.ticket_id
  WHERE
    history.field = 'schedule_id'
), assigned AS (
  SELECT
    ticket_id,
    schedule_id,
    valid_from,
    COALESCE(
      LEAD(valid_from) OVER (PARTITION BY ticket_id ORDER BY valid_from, change_id),
      '9999-12-31'::TIMESTAMP
    ) AS valid_to
  FROM given
), points AS (
  SELECT
    assigned.schedule_id,
    measured.ticket_id,
    measured.span,
    ends.sign,
    CASE
      WHEN ends.sign = 1
      THEN LEAST(measured.ends_at, assigned.valid_to)
      ELSE GREATEST(measured.begins_at, assigned.valid_from)
    END AS at
  FROM (
    SELECT
      spans.ticket_id,
      'reply' AS span,
      tickets.created_at AS begins_at,
      spans.waited_until AS ends_at
    FROM spans
    INNER JOIN tickets
      ON tickets.ticket_id = spans.ticket_id
    UNION ALL
    SELECT
      spans.ticket_id,
      'resolution',
      tickets.created_at,
      spans.solved_at
    FROM spans
    INNER JOIN tickets
      ON tickets.ticket_id = spans.ticket_id
    WHERE
      NOT spans.solved_at IS NULL
  ) AS measured
  INNER JOIN assigned
    ON assigned.ticket_id = measured.ticket_id
    AND assigned.valid_from <= measured.ends_at
    AND assigned.valid_to >= measured.begins_at
  CROSS JOIN (
    SELECT
      UNNEST([-1, 1]) AS sign
  ) AS ends
), business AS (
  /* Business seconds: what the schedule had been open at the end, less what it had at the beginning. Null as soon as a part of the time is in no schedule whose hours are held. */
  SELECT
    points.ticket_id,
    points.span,
    CASE
      WHEN COUNT(*) = COUNT(known.schedule_id)
      THEN SUM(
        points.sign * COALESCE(
          hours.seconds_before + DATE_DIFF('SECOND', hours.opens_at, LEAST(points.at, hours.closes_at)),
          0
        )
      )
    END AS seconds
  FROM points
  LEFT JOIN (
    SELECT DISTINCT
      schedule_id
    FROM marts.business_hours
  ) AS known
    ON known.schedule_id = points.schedule_id
  ASOF LEFT JOIN marts.business_hours AS hours
    ON hours.schedule_id = points.schedule_id AND hours.opens_at <= points.at
  GROUP BY
    points.ticket_id,
    points.span
), promised AS (
  SELECT
    events.ticket_id,
    ARG_MAX(events.target_seconds, (events.occurred_at, events.metric_event_id)) AS target_seconds,
    ARG_MAX(events.is_target_in_business_hours, (events.occurred_at, events.metric_event_id)) AS is_in_business_hours
  FROM staging.stg_zendesk__ticket_metric_events AS events
  INNER JOIN spans
    ON spans.ticket_id = events.ticket_id
  WHERE
    events.metric = 'reply_time'
    AND COALESCE(events.instance_id, 1) = 1
    AND events.event = 'apply_sla'
    AND NOT events.is_deleted
    AND events.occurred_at <= spans.waited_until
  GROUP BY
    events.ticket_id
), rated AS (
  SELECT
    ticket_id,
    ARG_MAX(
      CASE WHEN score LIKE 'good%' THEN 'good' ELSE 'bad' END,
      (COALESCE(updated_at, created_at), rating_id)
    ) AS satisfaction,
    MAX(COALESCE(updated_at, created_at)) AS rated_at
  FROM staging.stg_zendesk__satisfaction_ratings
  WHERE
    score LIKE 'good%' OR score LIKE 'bad%'
  GROUP BY
    ticket_id
), measured AS (
  SELECT
    spans.ticket_id,
    DATE_DIFF('SECOND', tickets.created_at, spans.first_reply_at) // 60 AS first_reply_minutes,
    CASE WHEN NOT spans.first_reply_at IS NULL THEN replied.seconds // 60 END AS first_reply_business_minutes,
    DATE_DIFF('SECOND', tickets.created_at, spans.first_solved_at) // 60 AS first_resolution_minutes,
    DATE_DIFF('SECOND', tickets.created_at, spans.solved_at) // 60 AS full_resolution_minutes,
    resolved.seconds // 60 AS full_resolution_business_minutes,
    promised.target_seconds // 60 AS reply_target_minutes,
    promised.is_in_business_hours AS is_reply_target_in_business_hours,
    CASE
      WHEN promised.is_in_business_hours
      THEN replied.seconds
      ELSE DATE_DIFF('SECOND', tickets.created_at, spans.waited_until)
    END <= promised.target_seconds AS is_still_in_time
  FROM spans
  INNER JOIN tickets
    ON tickets.ticket_id = spans.ticket_id
  LEFT JOIN business AS replied
    ON replied.ticket_id = spans.ticket_id AND replied.span = 'reply'
  LEFT JOIN business AS resolved
    ON resolved.ticket_id = spans.ticket_id AND resolved.span = 'resolution'
  LEFT JOIN promised
    ON promised.ticket_id = spans.ticket_id
)
SELECT
  tickets.ticket_id::BIGINT AS ticket_id,
  tickets.requester_id::BIGINT AS requester_id,
  tickets.assignee_id::BIGINT AS assignee_id,
  tickets.organization_id::BIGINT AS organization_id,
  tickets.group_id::BIGINT AS group_id,
  tickets.brand_id::BIGINT AS brand_id,
  tickets.status::TEXT AS status,
  tickets.priority::TEXT AS priority,
  tickets.ticket_type::TEXT AS ticket_type,
  tickets.channel::TEXT AS channel,
  tickets.created_at::TIMESTAMP AS created_at,
  @report_date(tickets.created_at)::DATE AS created_date,
  tickets.updated_at::TIMESTAMP AS updated_at,
  spans.first_reply_at::TIMESTAMP AS first_reply_at,
  spans.first_reply_by::BIGINT AS first_reply_by,
  measured.first_reply_minutes::BIGINT AS first_reply_minutes,
  measured.first_reply_business_minutes::BIGINT AS first_reply_business_minutes,
  spans.agent_replies::BIGINT AS agent_replies,
  spans.agents::BIGINT AS agents,
  spans.first_solved_at::TIMESTAMP AS first_solved_at,
  spans.solved_at::TIMESTAMP AS solved_at,
  measured.first_resolution_minutes::BIGINT AS first_resolution_minutes,
  measured.full_resolution_minutes::BIGINT AS full_resolution_minutes,
  measured.full_resolution_business_minutes::BIGINT AS full_resolution_business_minutes,
  spans.reopens::BIGINT AS reopens,
  measured.reply_target_minutes::BIGINT AS reply_target_minutes,
  measured.is_reply_target_in_business_hours::BOOLEAN AS is_reply_target_in_business_hours,
  CASE
    WHEN NOT measured.is_still_in_time
    THEN FALSE
    WHEN NOT spans.first_reply_at IS NULL
    THEN measured.is_still_in_time
  END::BOOLEAN AS is_reply_in_time,
  rated.satisfaction::TEXT AS satisfaction,
  rated.rated_at::TIMESTAMP AS rated_at,
  COALESCE(tickets.is_deleted, FALSE)::BOOLEAN AS is_deleted,
  tickets.deleted_at::TIMESTAMP AS deleted_at,
  tickets.loaded_at::TIMESTAMP AS loaded_at
FROM tickets
INNER JOIN spans
  ON spans.ticket_id = tickets.ticket_id
INNER JOIN measured
  ON measured.ticket_id = tickets.ticket_id
LEFT JOIN rated
  ON rated.ticket_id = tickets.ticket_id
