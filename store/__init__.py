"""Remembers what happened: rows, sealed directories and the vectors beside them."""
