"""Durable records behind one small interface. May import core alone."""
