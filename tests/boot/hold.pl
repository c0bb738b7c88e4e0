#!/usr/bin/perl
# Holds one thread of a process still until the process ends:  hold.pl PID THREAD-NAME
#
# A thread that hangs, as others see it: the kernel has it wait for a debugger, which never lets it go on.
use strict;
use warnings;
use POSIX;

my ($pid, $name) = @ARGV;
my $ptrace = (POSIX::uname())[4] eq 'aarch64' ? 117 : 101;
my ($PTRACE_SEIZE, $PTRACE_INTERRUPT, $WALL) = (0x4206, 0x4207, 0x40000000);

my $thread;
for my $task (glob "/proc/$pid/task/*") {
    open my $comm, '<', "$task/comm" or next;
    chomp(my $found = <$comm>);
    ($thread) = $task =~ /(\d+)$/ if $found eq $name;
}
defined $thread or die "no thread $name";
syscall($ptrace, $PTRACE_SEIZE, $thread + 0, 0, 0) == 0 or die "seize: $!";
syscall($ptrace, $PTRACE_INTERRUPT, $thread + 0, 0, 0) == 0 or die "interrupt: $!";
1 while waitpid(-1, $WALL) != -1;
