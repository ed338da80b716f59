"""Decides what should happen: pure functions over records, and the Cedar rules they apply."""
