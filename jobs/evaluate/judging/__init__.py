"""A model that judges answers: what it is asked, how its verdict is read, what is kept of it, and what it is worth."""
