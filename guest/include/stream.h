/* Containers' output: it goes through a FIFO for each log, and from there into memlogd or into files that stay small. */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define OUT_DIR "/run/linuxkit/out"
#define SERVICE_LOG_LIMIT (4 << 20) /* bytes of a log; as much again in its .1 */
#define ONCE_LOG_LIMIT (1 << 20)    /* of an onboot or onshutdown container's */
#define TAIL_LIMIT (16 << 10)       /* that we keep ourselves of a log that memlogd has */

struct stream {
    int from;                   /* what is read; -1: it came to its end */
    char *path, *tail;          /* the log's file; ours, for its last lines, while memlogd has the log */
    size_t limit, tail_limit;   /* bytes of the one and the other */
    int file;                   /* the one that is written; -1: not opened yet */
    size_t size;
    int memlogd;                /* a pipe to it; -1: it does not take this log */
    char *held;                 /* read, but not taken by memlogd yet */
    size_t held_at, held_end;
    double last, again;         /* when something came; when to ask memlogd again */
    bool cut;                   /* the last byte was no newline */
    uint64_t total, lost;       /* bytes that came, bytes that found no room */
};

/* The end for the container, to read and write: so a write never fails, and never is SIGPIPE, whatever becomes of us. -1 with errno. */
int stream_writer(const char *path);
/* The end for us. */
void stream_open(struct stream *stream, const char *path, size_t limit, size_t tail_limit);
/* The same for a pipe that is there already. */
void stream_of(struct stream *stream, int fd, const char *path, size_t limit, size_t tail_limit);
void stream_close(struct stream *stream); /* takes what is there */
void stream_forget(const char *path);     /* removes what is ours of a log: its FIFO, our copy of its end */
/* What to wait for, and what to do then; `ready`: poll() said so. Never waits. False: nothing was there. */
struct pollfd stream_wish(const struct stream *stream);
bool stream_step(struct stream *stream, bool ready);
/* Seconds until stream_step() is due without poll() having said so; negative: never. */
double stream_due(const struct stream *stream);
/* The file that has the log's last lines now. The caller frees it. */
char *stream_tail(const char *path);

/* --- copier.c */
/* A process of its own that copies these logs for ever. -1 with errno. */
pid_t copier_start(const char *const *paths, size_t count);
/* Waits, but not for long, until all that was written to these logs is in their files. */
void copier_settle(const char *out, const char *err);
int logger_main(const char *name); /* containerd's logging program for a service */
