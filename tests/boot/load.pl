#!/usr/bin/perl
# Mail servers that ask sasld again and again:  load.pl SOCKET CLIENTS SUMMARY NAME:PASSWORD...
#
# Each client connects, reads the greeting, logs one user in as Postfix's smtpd does, and begins anew, until this gets a
# SIGTERM. SUMMARY then has one line of counts: `ok`; `refused` (nobody listened); `ungreeted` (closed before the
# greeting was whole, which smtpd does not survive); `lost` (closed without an answer; Postfix asks once more); `denied`.
use strict;
use warnings;
use Errno;
use MIME::Base64;
use Socket;

my ($path, $clients, $summary, @users) = @ARGV;
my $stop = 0;
$SIG{TERM} = sub { $stop = 1 };
$SIG{PIPE} = 'IGNORE';

sub log_in {
    my ($name, $password) = @_;
    socket(my $server, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
    until (connect $server, pack_sockaddr_un($path)) {
        return 'refused' unless $!{EINTR};
    }
    syswrite $server, "VERSION\t1\t0\nCPID\t$$\n";
    while (1) {
        my $line = <$server>;
        return 'ungreeted' unless defined $line;
        last if $line eq "DONE\n";
    }
    my $response = encode_base64("\0$name\0$password", '');
    syswrite $server, "AUTH\t1\tPLAIN\tservice=smtp\trip=192.0.2.7\tsecured\tresp=$response\n";
    my $answer = <$server>;
    return 'lost' unless defined $answer;
    return $answer =~ /^OK\t1\t/ ? 'ok' : 'denied';
}

my @readers;
for (1 .. $clients) {
    pipe(my $read, my $write) or die "pipe: $!";
    if (fork // die "fork: $!") {
        push @readers, $read;
        next;
    }
    my %count;
    for (my $turn = 0; !$stop; $turn++) {
        my ($name, $password) = split /:/, $users[$turn % @users], 2;
        $count{ log_in($name, $password) }++;
        select undef, undef, undef, 0.005;
    }
    print $write "$_ $count{$_}\n" for keys %count;
    close $write;
    exit 0;
}
# Signals are sent to the whole group.
my %total = map { $_ => 0 } qw(ok refused ungreeted lost denied);
for my $reader (@readers) {
    while (1) {
        my $line = <$reader>;
        last unless defined $line;
        my ($what, $count) = split ' ', $line;
        $total{$what} += $count;
    }
}
open my $out, '>', $summary or die "$summary: $!";
print $out join(' ', map {"$_=$total{$_}"} sort keys %total), "\n";
close $out or die "$summary: $!";
