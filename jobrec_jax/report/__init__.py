"""Results as rows, tables, figures and one HTML page."""
