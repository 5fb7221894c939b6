"""All modules that break the models of one domain each, for the tests of audits and of contracts."""

from integration import (
    broken_acquisition,
    broken_consent,
    broken_customers,
    broken_google_analytics,
    broken_revenue,
    broken_stripe,
    broken_subscriptions,
    broken_support,
    broken_zendesk,
)

OTHERS = (
    broken_stripe, broken_google_analytics, broken_zendesk, broken_subscriptions, broken_revenue, broken_customers, broken_support, broken_acquisition,
    broken_consent,
)  # fmt: skip
