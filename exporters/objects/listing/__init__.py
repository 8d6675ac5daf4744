"""The listing of a bucket: in parallel parts, kept in shards, checked by a second listing."""
