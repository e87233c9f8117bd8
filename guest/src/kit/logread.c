/* logread: prints what memlogd keeps, as TIME;SOURCE;MESSAGE. */
#include "ending.h"
#include "command.h"
#include "memlog.h"
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    const char *path = MEMLOG_QUERIES;
    bool follow = false, both = false;
    const struct flag flags[] = {
        {.names = "socket", .text = &path, .help = "memlogd's socket (" MEMLOG_QUERIES ")"},
        {.names = "f", .yes = &follow, .help = "only what comes from now on"},
        {.names = "F", .yes = &both, .help = "what is there, and what comes"},
    };
    program_is("logread", "logread [-f | -F] [-socket PATH]");
    command_none(flags, COUNT(flags), argc, argv);
    end_by_signals();
    scoped_memlog log;
    if (memlog_open(&log, path, both ? MEMLOG_DUMP_AND_FOLLOW : follow ? MEMLOG_FOLLOW : MEMLOG_DUMP, 0) < 0) {
        const char *hint = errno == ENOENT ? "; is kit://memlogd among init?" : "";
        fprintf(stderr, "logread: %s: %s%s\n", path, strerror(errno), hint);
        return 1;
    }
    int got;
    while ((got = memlog_next(&log)) > 0) {
        fputs(log.time, stdout);
        putchar(';');
        for (const char *at = log.source; *at; at++) {
            if (*at == ';')
                putchar('\\');
            putchar(*at);
        }
        printf(";%s\n", log.message);
        if ((both || follow) && fflush(stdout) == EOF)
            break;
    }
    if (got < 0)
        fprintf(stderr, "logread: %s: %s\n", path, strerror(errno));
    return got < 0 || fflush(stdout) == EOF ? 1 : 0;
}
