"""External guard models over HTTP."""
