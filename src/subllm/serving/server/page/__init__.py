"""The page at `/`: static files, and the one JSON document that they show."""
