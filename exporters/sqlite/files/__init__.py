"""Database files: consistent copies, directories of files, connections to them."""
