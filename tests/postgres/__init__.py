"""Tests that need PostgreSQL's programs: the store there, and brokers that share one."""
