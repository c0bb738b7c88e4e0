#!/usr/bin/perl
# A mail server gone mad beside honest ones:  flood.pl SOCKET SECONDS CONNECTIONS NAME:PASSWORD...
#
# CONNECTIONS of it begin exchanges by the hundred and never go on with one, guess a password now and then, and every
# tenth of them leaves in the middle of a line and comes again. Meanwhile each user named logs in again and again on a
# connection of his own. Prints one line of counts: what the flood did, and how often the users were let in (`right`),
# were refused (`wrong`), or had no verdict in time (`none`, for which sasld closes the connection).
use strict;
use warnings;
use MIME::Base64;
use Socket;
use Time::HiRes 'time';

my ($path, $seconds, $connections, @users) = @ARGV;
my $end = time + $seconds;
$SIG{PIPE} = 'IGNORE';

sub greeted {
    socket(my $server, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
    connect($server, pack_sockaddr_un($path)) or die "connect: $!";
    syswrite $server, "VERSION\t1\t0\nCPID\t$$\n";
    while (1) {
        my $line = <$server>;
        die "closed within the greeting" unless defined $line;
        return $server if $line eq "DONE\n";
    }
}

sub plain {
    my ($id, $user, $address) = @_;
    my ($name, $password) = split /:/, $user, 2;
    my $response = encode_base64("\0$name\0$password", '');
    return "AUTH\t$id\tPLAIN\tservice=smtp\trip=$address\tsecured\tresp=$response\n";
}

# ---- the users, a process for each

my @readers;
for my $user (@users) {
    pipe(my $read, my $write) or die "pipe: $!";
    if (fork // die "fork: $!") {
        push @readers, $read;
        next;
    }
    my ($right, $wrong, $none) = (0, 0, 0);
    my $server = greeted();
    for (my $id = 1; time < $end; $id++) {
        syswrite $server, plain($id, $user, '192.0.2.7');
        my $answer = <$server>;
        if (!defined $answer) {
            $none++;
            $server = greeted();
        } elsif ($answer =~ /^OK\t$id\t/) {
            $right++;
        } else {
            $wrong++;
            print STDERR "$user: $answer";
        }
    }
    print $write "$right $wrong $none\n";
    close $write;
    exit 0;
}

# ---- the flood

my ($begun, $guesses, $left, $id) = (0, 0, 0, 0);
my @flood = map { greeted() } 1 .. $connections;

# Whether all of a hundred were taken; a guess without a verdict ends the connection.
sub hundred {
    my $server = shift;
    syswrite $server, join '', map { "AUTH\t" . ++$id . "\tCRAM-MD5\tservice=smtp\n" } 1 .. 100;
    for (1 .. 100) {
        my $line = <$server> // return 0;
        # Refusals of guesses come in between, and those of the oldest exchanges.
        redo if $line =~ /^FAIL/;
        die "the flood heard: $line" unless $line =~ /^CONT/;
        $begun++;
    }
    return 1;
}

while (time < $end) {
    for my $number (0 .. $#flood) {
        last if time >= $end;
        if (!hundred($flood[$number])) {
            $flood[$number] = greeted();
        } elsif ($number % 10 == 1) {
            syswrite $flood[$number], plain(++$id, "$users[0]-not", sprintf '198.51.100.%d', $guesses++ % 250);
        } elsif ($number % 10 == 2) {
            syswrite $flood[$number], "AUTH\t1\tPLA";
            $flood[$number] = greeted();
            $left++;
        }
    }
}

my @answers = (0, 0, 0);
for my $reader (@readers) {
    my @counts = split ' ', <$reader>;
    $answers[$_] += $counts[$_] for 0 .. 2;
}
print "connections=$connections abandoned=$begun guesses=$guesses left=$left right=$answers[0] wrong=$answers[1] none=$answers[2]\n";
