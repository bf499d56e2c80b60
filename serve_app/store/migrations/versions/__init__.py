"""Migrations in order. Stores only go forward; the way back is a backup.

A released file is never edited: a change of `tables.py` adds the next one.
"""
