"""What programs and hosts ask of a running app: an OpenAI-style server, health, readiness and metrics."""
