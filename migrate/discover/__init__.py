"""Finds what there is on servers, in accounts and in directories, and keeps the case file up with it."""
