"""Tests that you may run on an adapter of your own."""
