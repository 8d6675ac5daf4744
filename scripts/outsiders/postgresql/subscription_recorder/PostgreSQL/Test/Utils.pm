# Stands for PostgreSQL's own module of this name: see Cluster.pm.
package PostgreSQL::Test::Utils;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(slurp_file append_to_file check_pg_config command_ok command_fails run_log $windows_os
  $use_unix_sockets $timeout_default);
our ($windows_os, $use_unix_sockets, $timeout_default) = (0, 1, 1);
our $tmp_check = '/tmp';

sub slurp_file { return ''; }
sub append_to_file { return 1; }
sub check_pg_config { return 0; }
sub command_ok { return 1; }
sub command_fails { return 1; }
sub run_log { return 1; }
sub tempdir { return '/nonexistent'; }

1;
