"""A seeded labour market whose truth is known for every pair."""
