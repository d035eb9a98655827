"""Noise sessions and WebSocket peer links. May import core alone."""
