"""Test suites that other people wrote, run against moveout."""
