"""Durable rows: SQLAlchemy over SQLite or PostgreSQL. What it returned from is on disk."""
