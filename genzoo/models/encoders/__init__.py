"""Encoders: images to vectors."""
