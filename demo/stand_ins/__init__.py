"""Stand-ins of the APIs that sources read: small local servers with the documented behaviour, for the demo and the tests."""
