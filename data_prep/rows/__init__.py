"""Instructions and preferences from files in the forms that people have: recognised, checked, stored as messages.

``recipe`` (settings), ``messages``, ``fields`` and ``forms`` (rows to conversations; no field is dropped), ``drafts``
(conversations to the rows that are stored), ``checks`` and ``pairs`` (what is dropped or counted), ``shard`` (the rows
of one shard, by a process of its own) and ``table`` (all rows as numbers), ``lengths`` (packing), ``export``
(forms of other back ends), ``build`` (the order of it all). Ids are made by ``jobs.encoding``, as the trainers make
them. Texts are on disk; of each row some numbers are in memory.
"""
