"""Files of any size to a corpus: read, cleaned, filtered, without duplicates, split, tokenised; in shards, streaming.

Needs the extra ``data``. Where each step is: ``recipe`` (settings), ``inputs`` (files to shards), ``read`` (formats and
bad input), ``clean`` (what is done to a text, and which are left out), ``shard`` (the work of one shard), ``decide``
(what only all shards together show), ``build`` (the order of it all, resumed after a kill).
"""
