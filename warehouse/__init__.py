"""The ground every room stands on: settings, clock, errors, storage, ledger and lease."""
