"""Holds on the sources themselves, for the time before the export is finished: nothing is deleted from a bucket,
nothing is written into a database. What a hold changes, and how it was, stands in an undo file before it is
changed.
"""
