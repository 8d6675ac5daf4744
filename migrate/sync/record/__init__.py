"""The record of a sync: which object of the source became which object of the destination."""
