"""The card of a data set: counts, examples, the page."""
