"""Tests that others may run on what they build."""
