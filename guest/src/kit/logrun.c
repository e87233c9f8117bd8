/* logwrite [-n NAME] PROGRAM...: runs a program whose output goes to memlogd as NAME.out, its errors as NAME. */
#define _GNU_SOURCE
#include "command.h"
#include "memlog.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* A pipe whose other end memlogd has; -1: it has not. */
static int stream(const char *socket, const char *name)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    int passed = memlog_pass(socket, name, ends[0]), error = errno;
    close(ends[0]);
    if (passed == 0)
        return ends[1];
    close(ends[1]);
    errno = error;
    return -1;
}

int main(int argc, char **argv)
{
    const char *name = "", *socket = MEMLOG_LOGS;
    const struct flag flags[] = {
        {.names = "n", .text = &name, .help = "name in the log (the program's)"},
        {.names = "socket", .text = &socket, .help = "memlogd's socket (" MEMLOG_LOGS ")"},
    };
    program_is("logwrite", "logwrite [-n NAME] [-socket PATH] PROGRAM [ARGUMENT...]");
    int at = command_start(flags, COUNT(flags), argc, argv);
    if (at == argc)
        usage("which program?");
    if (!*name)
        name = base_name(argv[at]);
    scoped_free char *out_name = format("%s.out", name);
    int out = stream(socket, out_name), err = out < 0 ? -1 : stream(socket, name);
    if (err < 0)
        fprintf(stderr, "logwrite: %s: %s; the program's output stays here\n", socket, strerror(errno));
    else if (dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        return 1;
    execvp(argv[at], argv + at);
    int error = errno;
    fprintf(stderr, "logwrite: %s: %s\n", argv[at], strerror(error));
    return error == ENOENT ? 127 : 126;
}
