"""Sessions at a MySQL or MariaDB server: what they may do, and the locks under which a snapshot begins."""
