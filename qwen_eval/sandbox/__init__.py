"""Runs programs that a model wrote, contained, and says whether they pass their tests."""
