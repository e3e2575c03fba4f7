"""Models over discrete codes."""
