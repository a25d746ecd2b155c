"""One row of a data set to the ids that are trained and scored, and which of them carry loss.

The data stage (lengths, the card), ``overnight data inspect``, every back end and the evaluation call
``rows.RowEncoder``, so that none of them can see other ids than the others. ``settings``: what a data set says of its
rows; ``messages`` and ``chat``: conversations by the ``template``, as transformers renders them, ``turns``: where
answers stand in them, ``frames``: those of one shape; ``texts``: prompts and answers without a template; ``control``:
control tokens that stand in texts; ``tokens``: ids and their loss; ``rows``: all together. transformers is imported
only where a row is encoded.
"""
