"""Data sets as files: JSON lines, RecBole, the published CSV layout, single records."""
