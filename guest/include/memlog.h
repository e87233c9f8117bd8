/* The log in memory: giving it what to read, and asking it. docs/logging.md has the protocol. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define MEMLOG_LOGS "/var/run/linuxkit-external-logging.sock" /* datagrams: a descriptor, and the name of its log */
#define MEMLOG_QUERIES "/var/run/memlogdq.sock"               /* streams: one byte, then lines of JSON */
#define MEMLOG_NAME_MAX 255                                   /* bytes of a log's name; the rest is cut off */
#define MEMLOG_REPLY_MAX (1 << 20)                            /* of one line of an answer; longer ones are left out */

enum memlog_query { MEMLOG_DUMP, MEMLOG_FOLLOW, MEMLOG_DUMP_AND_FOLLOW };

/* Has the log read from `fd` from now on. 0, or -1 with errno: it isn't there, or is too busy. Never takes long. */
int memlog_pass(const char *socket, const char *name, int fd);

/* A conversation with the log. */
struct memlog {
    int fd;
    char *text, *message; /* what came, and the message of the line that was read last */
    size_t start, used, room;
    bool passing; /* in a line that is too long */
    char time[64], source[6 * MEMLOG_NAME_MAX];
};

/* 0, or -1 with errno. `seconds`: how long it may stay silent, 0 for ever. */
int memlog_open(struct memlog *log, const char *socket, enum memlog_query query, int seconds);
/* 1: time, source and message are those of the next line. 0: there are no more. -1: errno says why. */
int memlog_next(struct memlog *log);
void memlog_close(struct memlog *log);
#define scoped_memlog __attribute__((cleanup(memlog_close))) struct memlog
