"""From people's words to rows worth learning: each is kept, or dropped by a screen with its reason.

Whose word may be learnt at all, and what must never be (secrets, personal data), is policy's affair and comes before;
wordings and splits are the dataset's, after.
"""
