#!/usr/bin/perl
# A mail server gone mad beside honest ones:  flood.pl SOCKET SECONDS CONNECTIONS NAME:PASSWORD...
#
# CONNECTIONS of it begin exchanges by the hundred and never go on with one, guess a password now and then, and every
# tenth of them leaves in the middle of a line and comes again. Meanwhile each user named logs in again and again on a
# connection of his own. Prints one line of counts: what the flood did, `right` and `wrong` answers to the users, and the
# slowest one's milliseconds.
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
    my ($right, $wrong, $slowest) = (0, 0, 0);
    my $server = greeted();
    for (my $id = 1; time < $end; $id++) {
        my $began = time;
        syswrite $server, plain($id, $user, '192.0.2.7');
        my $answer = <$server> // '';
        my $took = time - $began;
        $slowest = $took if $took > $slowest;
        if ($answer =~ /^OK\t$id\t/) {
            $right++;
        } else {
            $wrong++;
            print STDERR "$user: $answer\n";
            $server = greeted() if $answer eq '';
        }
    }
    printf $write "%d %d %d\n", $right, $wrong, $slowest * 1000;
    close $write;
    exit 0;
}

# ---- the flood

my ($begun, $guesses, $left, $id) = (0, 0, 0, 0);
my @flood = map { greeted() } 1 .. $connections;
while (time < $end) {
    for my $number (0 .. $#flood) {
        last if time >= $end;
        my $server = $flood[$number];
        my $batch = join '', map { "AUTH\t" . ++$id . "\tCRAM-MD5\tservice=smtp\n" } 1 .. 100;
        syswrite $server, $batch;
        for (1 .. 100) {
            # Refusals of guesses come in between.
            my $line = <$server> // die "the flood was closed";
            redo if $line =~ /^FAIL/;
            die "the flood heard: $line" unless $line =~ /^CONT/;
        }
        $begun += 100;
        if ($number % 10 == 1) {
            syswrite $server, plain(++$id, "$users[0]-not", sprintf '198.51.100.%d', $guesses++ % 250);
        } elsif ($number % 10 == 2) {
            syswrite $server, "AUTH\t1\tPLA";
            $flood[$number] = greeted();
            $left++;
        }
    }
}

my ($right, $wrong, $slowest) = (0, 0, 0);
for my $reader (@readers) {
    my ($r, $w, $s) = split ' ', <$reader>;
    $right += $r;
    $wrong += $w;
    $slowest = $s if $s > $slowest;
}
print "connections=$connections abandoned=$begun guesses=$guesses left=$left right=$right wrong=$wrong slowest_ms=$slowest\n";
