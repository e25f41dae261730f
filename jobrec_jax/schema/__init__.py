"""What faces what in a domain, and what every room stands on: files, streams, settings."""
