# Stands for PostgreSQL's own module of this name. No server is started: what a test would send to its servers is
# written down, a line of JSON each, in the file that the variable RECORD names.
package PostgreSQL::Test::Cluster;

use strict;
use warnings;
use JSON::PP;

our ($test_localhost, $test_pghost, $use_unix_sockets) = ('127.0.0.1', '127.0.0.1', 0);
our $AUTOLOAD;
my $coder = JSON::PP->new->canonical->latin1;
my $sessions = 0;
open(my $record, '>', $ENV{RECORD}) or die "cannot write $ENV{RECORD}: $!";
$record->autoflush(1);

sub new
{
	my ($class, $name) = @_;
	return bless { name => $name }, $class;
}

sub note
{
	my ($self, $kind, %fields) = @_;
	print $record $coder->encode({ node => $self->{name}, kind => $kind, %fields }), "\n";
	return '';
}

sub safe_psql
{
	my ($self, $database, $text) = @_;
	return $self->note('sql', database => $database, text => $text);
}

sub psql
{
	my ($self, $database, $text) = @_;
	$self->note('sql', database => $database, text => $text);
	return wantarray ? (0, '', '') : 0;
}

sub background_psql
{
	my ($self, $database) = @_;
	return bless { node => $self, database => $database, number => ++$sessions },
	  'PostgreSQL::Test::BackgroundSession';
}

sub connstr
{
	my ($self, $database) = @_;
	return "host=$self->{name}" . (defined $database ? " dbname=$database" : '');
}

sub start { return $_[0]->note('start'); }
sub stop { return $_[0]->note('stop', mode => $_[1] // 'fast'); }
sub restart { $_[0]->note('stop', mode => 'fast'); return $_[0]->note('start'); }
sub poll_query_until { return 1; }
sub name { return $_[0]->{name}; }
sub data_dir { return '/nonexistent'; }
sub logfile { return '/nonexistent'; }
sub host { return '127.0.0.1'; }
sub port { return 1; }
sub wait_for_log { return 1; }

# init, append_conf, reload, wait_for_catchup and whatever else a version has: nothing to be done
sub AUTOLOAD { return 1; }

sub DESTROY { }

package PostgreSQL::Test::BackgroundSession;

our $AUTOLOAD;

sub query_safe
{
	my ($self, $text) = @_;
	return $self->{node}
	  ->note('sql', database => $self->{database}, text => $text, session => $self->{number});
}

sub query { return query_safe(@_); }

sub quit
{
	my ($self) = @_;
	return $self->{node}->note('end session', session => $self->{number});
}

sub AUTOLOAD { return 1; }

sub DESTROY { }

1;
