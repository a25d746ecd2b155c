"""``overnight new``: what a user has and wants, asked or given, and the pipeline that follows from it."""
