"""Tests of the feed layer."""
