"""The overlay of a task: what has changed since the last commit, over what the store holds, with undo.

    cells.get(key)      overlay, else decoded cache, else the store (read-your-writes)
    cells.put(key, v)   into the overlay; the old value into the undo log
    mark() / rollback() a batch that fails is undone as if it had never been
    changes()           every entry that differs from the store, encoded, in key order: for the changelog and the store
    committed()         after the transaction and `Store.apply`: the overlay becomes cache, and the cache is trimmed

Values are treated as immutable: an operator puts a new object, it never changes one that it has put or got. That makes undo a
matter of putting references back, and lets the decoded cache be shared. What was created and deleted between two commits is
no change at all, so a window that opens and closes within one commit interval costs nothing in changelog and store.
"""
