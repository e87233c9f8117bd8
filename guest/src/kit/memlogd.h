/* memlogd's parts: logs that are read (sources.c), programs that ask for them (readers.c), the loop around both. */
#pragma once

#include "memlog.h"
#include "ring.h"

#include <stdbool.h>
#include <poll.h>
#include <sys/types.h>

#define SOURCES_MAX 1000
#define READERS_MAX 64
#define PARTS_MAX 65536 /* bytes of one line that may be asked for */

struct source {
    int fd;
    bool socket;
    char name[MEMLOG_NAME_MAX + 1];
    char *line; /* what came of a line that has not ended */
    size_t used;
};

struct sources {
    struct ring *ring;
    struct source *items;
    size_t count, line_max;
};

/* Takes descriptors from the socket, as long as some are there (but not for ever). */
void sources_take(struct sources *all, int socket);
/* Reads what is there of one log, at most `limit` bytes. False: it has ended, and is gone from the list. */
bool source_read(struct sources *all, size_t at, size_t limit);
/* Everything that was written before now, as far as pipes hold it. */
void sources_drain(struct sources *all, int socket);

struct reader {
    int fd;
    bool asked, follows;
    double since;
    uint64_t at, end; /* line to send next; without `follows`, where to stop */
    char *out;
    size_t used, sent;
};

struct readers {
    const struct ring *ring;
    struct reader *items;
    size_t count, line_max;
};

void readers_accept(struct readers *all, int socket);
/* What poll() is to say about it. */
short reader_events(const struct readers *all, const struct reader *reader);
/* Goes on with one: takes its question, gives it lines, as far as it takes them at once. False: it is done with. */
bool reader_step(struct readers *all, struct reader *reader, short events, struct sources *sources, int logs);
/* Forgets those that say nothing. */
void readers_expire(struct readers *all);
void reader_remove(struct readers *all, size_t at);
