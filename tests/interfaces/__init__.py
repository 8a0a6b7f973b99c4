"""Programs that are there already, unmodified, against the service."""
