/*
 * Preloaded by tests: reads and writes of files and pipes move a single byte, as the kernel is free to let them. $SHORT
 * says which one of them, counted from 1; 0 is every one. How many there were is written to the file $SHORT_COUNT.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_ulong calls, chosen;

__attribute__((constructor)) static void begin(void)
{
    const char *which = getenv("SHORT");

    chosen = which ? strtoul(which, NULL, 10) : 0;
    /* Programs that this one starts are let alone. */
    unsetenv("LD_PRELOAD");
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("SHORT_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;

    if (file != NULL) {
        fprintf(file, "%lu", (unsigned long)calls);
        fclose(file);
    }
}

static size_t shorter(int fd, size_t bytes)
{
    struct stat file;

    if (bytes < 2 || fstat(fd, &file) != 0 || !(S_ISREG(file.st_mode) || S_ISFIFO(file.st_mode)))
        return bytes;
    calls++;
    return chosen == 0 || chosen == calls ? 1 : bytes;
}

ssize_t read(int fd, void *to, size_t bytes)
{
    return syscall(SYS_read, fd, to, shorter(fd, bytes));
}

ssize_t write(int fd, const void *from, size_t bytes)
{
    return syscall(SYS_write, fd, from, shorter(fd, bytes));
}
