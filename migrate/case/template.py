"""What ``moveout init`` writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

HOURS_LEFT = 30
"""The deadline of a new case file, from now on."""
_EXAMPLE_DEADLINE = "2026-11-29T18:00:00Z"

TEMPLATE = """\
# One move: what leaves, by when, and where it goes. Then: moveout run -c moveout.toml
# moveout discover postgresql://me@old "s3://?profile=old" --to FILE finds what there is, and writes such a file.

[case]
name = "acme"
# The moment at which the old host shuts the door: write the real one. Also "2026-11-29 18:00 Europe/Berlin".
deadline = 2026-11-29T18:00:00Z
# So long before it the bundle is sealed, complete or not, so that it can still travel. What is left goes on after that.
# reserve = "30m"
# Who is notified when a stage ends, when something is missing, and when the forecast passes the deadline.
# notify = { command = "./tell-the-team", url = "https://hooks.example/moveout" }

# What leaves. A source's name becomes a folder of the bundle: lower-case letters, digits, "-" and "_".
[[source]]
name = "app"
url = "postgresql://reader@old.example:5432/app"
# The password comes from PGPASSWORD, ~/.pgpass or a service file, or from a reference:
# password = "env:OLD_DB_PASSWORD"        # also "file:secrets/old-db", "command:pass show old-db"
# Does not everything fit before the deadline? 1 leaves before 2; within one, the most value for its time.
# priority = 1
# value = 10

[[source]]
name = "media"
# Not everything? What stays is named in the bundle.
# exclude = ["tmp/**", "*.log"]            # globs of keys; include = [...] takes only what matches
# current_only = true                      # no older versions; also min_size, max_size, newer_than, older_than, tags
# sse_c = "file:media.key"                 # the key of objects that are encrypted with one of your own (SSE-C)
# inventory = "s3://reports/media/daily/2026-11-25T01-00Z/manifest.json?profile=old"  # an S3 Inventory to count by
# The profile is AWS's own: ~/.aws/config, with endpoint_url for servers that are not Amazon's.
url = "s3://media?profile=old"
# Or without a profile, by the AWS_* variables, or by references:
# access_key_id = "env:OLD_KEY"
# secret_access_key = "env:OLD_SECRET"

# [[source]]
# name = "shop"
# url = "mysql://reader@old.example:3306/shop"     # MySQL and MariaDB; the password comes from MYSQL_PWD or ~/.my.cnf

# [[source]]
# name = "notes"
# url = "sqlite:///srv/app/notes.db"               # a file

# All of a server, each a source of its own (moveout discover names them one by one):
# [[source]]
# url = "postgresql://reader@old.example/*"        # also "mysql://reader@old.example/*", "sqlite:///srv/app/*"
# [[source]]
# url = "s3://*?profile=old"                       # all buckets; "s3://corp-*?profile=old" those that begin so

# Where the bundle is written first: a directory, or s3://bucket/prefix.
[bundle]
location = "./bundle"

# Where the bundle travels to, on the new host.
[transfer]
location = "s3://evacuated/acme?profile=new"

# What is brought up again on the new host, from the bundle there.
[[destination]]
source = "app"
url = "postgresql://owner@new.example:5432/app"

[[destination]]
source = "media"
url = "s3://media?profile=new"

# Or all of a server, under the names that things have there:
# [[destination]]
# from = "postgresql://reader@old.example:5432"
# to = "postgresql://owner@new.example:5432"

# What stays on the old servers on purpose; what else is there is named at the end.
# [[left_out]]
# url = "postgresql://reader@old.example:5432/scratch"
# reason = "test data"

# Who signs the bundle and its custody log (moveout keys init makes a key), and whose signatures count.
# [custody]
# key = "acme.key"                                  # or "acme.key.pub": a key that the ssh-agent has
# passphrase = "env:ACME_PASSPHRASE"
# signers = "allowed_signers"
# timestamp = "https://timestamps.example/tsa"     # an authority that says when (RFC 3161)
# release_keys = ["SHA256:…1", "SHA256:…2"]         # who may end a hold, and how many of them it takes
# release_quorum = 2

# [limits]
# workers = 8
# bwlimit = "50M"       # bytes a second; by time of day: "08:00,10M 19:00,off"
# gentle = true          # source databases: short statements, pauses that follow their load
# max_connections = 4    # to a source database at once
# statement_timeout = "30m"
# lock_timeout = "60s"   # waiting for another session's lock
# archived = "auto"      # archived objects are brought back: bulk, standard, expedited; auto: by the deadline; no
"""


def new_text(now: datetime) -> str:
    """Return the template with a deadline that lies before us."""
    deadline = (now + timedelta(hours=HOURS_LEFT)).astimezone(UTC)
    return TEMPLATE.replace(f"deadline = {_EXAMPLE_DEADLINE}", f"deadline = {deadline:%Y-%m-%dT%H:%M:%SZ}", 1)
