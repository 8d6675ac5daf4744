"""The same work on many machines: batches of units go to the workers of a Dask cluster.

Only the location has what is done. A worker gets plain data (``protocol``). It opens location and source by
itself, with secrets of its own (``worker_state``). It commits as a thread here would, as long as the lead's lease holds
(``lease_guard``).
"""
