/* One log: from its FIFO, or a pipe, to memlogd or to a file that starts anew when it is full. */
#define _GNU_SOURCE
#include "stream.h"
#include "memlog.h"
#include "service.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE 65536     /* a pipe's size */
#define STALL 5.0       /* seconds that memlogd may take nothing; the log goes to its file then */
#define AGAIN 60.0      /* seconds until it is asked again */
#define UNFINISHED 0.5  /* seconds until a line without an end is one */

static double refused; /* when memlogd did not answer: nobody asks before AGAIN has passed */

static char *fifo_of(const char *path)
{
    return format(OUT_DIR "/%s", base_name(path));
}

static char *tail_of(const char *path)
{
    return format(OUT_DIR "/%s.tail", base_name(path));
}

static int fifo_open(const char *path, int flags)
{
    scoped_free char *fifo = fifo_of(path);
    if (mkfifo(fifo, 0600) < 0 && errno == ENOENT) {
        make_dirs(OUT_DIR, 0700);
        (void)!mkfifo(fifo, 0600);
    }
    return open(fifo, O_RDWR | O_CLOEXEC | flags);
}

int stream_writer(const char *path)
{
    return fifo_open(path, 0);
}

void stream_of(struct stream *stream, int fd, const char *path, size_t limit, size_t tail_limit)
{
    *stream = (struct stream){.from = fd, .path = must_dup(path), .tail = tail_of(path), .limit = limit,
                              .tail_limit = tail_limit, .file = -1, .memlogd = -1, .again = -1};
}

void stream_open(struct stream *stream, const char *path, size_t limit, size_t tail_limit)
{
    stream_of(stream, fifo_open(path, O_NONBLOCK), path, limit, tail_limit);
}

/* --- the file */

static void file_open(struct stream *stream, bool anew)
{
    const char *path = stream->memlogd >= 0 ? stream->tail : stream->path;
    struct stat info;
    make_parents(path);
    stream->file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (anew ? O_TRUNC : 0), 0644);
    stream->size = stream->file >= 0 && fstat(stream->file, &info) == 0 && info.st_size > 0 ? (size_t)info.st_size : 0;
}

static void file_close(struct stream *stream)
{
    if (stream->file >= 0)
        close(stream->file);
    stream->file = -1;
}

static bool file_put(struct stream *stream, const char *bytes, size_t length)
{
    if (stream->file < 0 || write_all(stream->file, bytes, length) < 0)
        return false;
    stream->size += length;
    return true;
}

static void keep(struct stream *stream, const char *bytes, size_t length)
{
    bool log = stream->memlogd < 0;
    size_t limit = log ? stream->limit : stream->tail_limit;
    scoped_free char *old = format("%s.1", log ? stream->path : stream->tail);
    if (length > limit) {
        stream->lost += log ? length - limit : 0;
        bytes += length - limit;
        length = limit;
    }
    if (stream->file < 0)
        file_open(stream, false);
    if (stream->size + length > limit && stream->size) {
        file_close(stream);
        rename(log ? stream->path : stream->tail, old);
        file_open(stream, true);
    }
    if (stream->lost) {
        scoped_free char *note = format("linuxkit: %llu bytes are missing here\n", (unsigned long long)stream->lost);
        if (file_put(stream, note, strlen(note)))
            stream->lost = 0;
    }
    if (file_put(stream, bytes, length))
        return;
    /* Full: what is new is worth more than what is old. */
    unlink(old);
    if (stream->file >= 0 && ftruncate(stream->file, 0) == 0)
        stream->size = 0;
    if (!file_put(stream, bytes, length))
        stream->lost += length;
}

/* --- memlogd */

/* It does not take this log any more: what it may not have got goes into the file, from our own copy of the end. */
static void give_up(struct stream *stream, double again)
{
    size_t length = 0;
    close(stream->memlogd);
    file_close(stream);
    free(stream->held);
    stream->memlogd = -1;
    stream->held = NULL;
    stream->again = again;
    scoped_free char *text = read_file(stream->tail, 2 * stream->tail_limit, &length);
    unlink(stream->tail);
    if (text)
        keep(stream, text, length);
}

static void ask_memlogd(struct stream *stream)
{
    int ends[2];
    if (stream->memlogd >= 0 || now() < stream->again || (refused && now() < refused + AGAIN))
        return;
    if (!exists(MEMLOG_LOGS) || pipe2(ends, O_CLOEXEC) < 0) {
        stream->again = now() + AGAIN;
        return;
    }
    const char *file = base_name(stream->path);
    size_t length = strlen(file);
    scoped_free char *name = format("%.*s", (int)(ends_with(file, ".log") ? length - 4 : length), file);
    int passed = memlog_pass(MEMLOG_LOGS, name, ends[0]);
    close(ends[0]);
    if (passed < 0) {
        close(ends[1]);
        refused = now();
        return;
    }
    refused = 0;
    fcntl(ends[1], F_SETFL, O_WRONLY | O_NONBLOCK);
    file_close(stream);
    stream->memlogd = ends[1];
}

/* Gives it what we hold back. */
static void pass_held(struct stream *stream)
{
    while (stream->held_at < stream->held_end) {
        ssize_t put = write(stream->memlogd, stream->held + stream->held_at, stream->held_end - stream->held_at);
        if (put < 0 && errno == EAGAIN) {
            if (now() - stream->last > STALL)
                give_up(stream, now() + AGAIN);
            return;
        }
        if (put < 0 && errno != EINTR) {
            give_up(stream, now() + AGAIN);
            return;
        }
        stream->held_at += put > 0 ? (size_t)put : 0;
    }
    free(stream->held);
    stream->held = NULL;
}

static void pass(struct stream *stream, const char *bytes, size_t length)
{
    if (stream->memlogd < 0)
        return;
    stream->held = must_alloc(length);
    memcpy(stream->held, bytes, length);
    stream->held_at = 0;
    stream->held_end = length;
    pass_held(stream);
}

/* --- one step */

static bool take(struct stream *stream)
{
    static char piece[PIECE];
    ssize_t got = read(stream->from, piece, sizeof(piece));
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        close(stream->from);
        stream->from = -1;
    }
    if (got <= 0)
        return false;
    stream->last = now();
    stream->total += (size_t)got;
    stream->cut = piece[got - 1] != '\n';
    ask_memlogd(stream);
    keep(stream, piece, (size_t)got);
    pass(stream, piece, (size_t)got);
    return true;
}

struct pollfd stream_wish(const struct stream *stream)
{
    return stream->held ? (struct pollfd){.fd = stream->memlogd, .events = POLLOUT}
                        : (struct pollfd){.fd = stream->from, .events = POLLIN};
}

double stream_due(const struct stream *stream)
{
    double limit = stream->held ? STALL : stream->memlogd >= 0 && stream->cut ? UNFINISHED : -1;
    double left = stream->last + limit - now();
    return limit < 0 ? -1 : left > 0 ? left : 0;
}

bool stream_step(struct stream *stream, bool ready)
{
    if (stream->held) {
        pass_held(stream);
        return false;
    }
    if (ready && stream->from >= 0)
        return take(stream);
    if (stream->memlogd >= 0 && stream->cut && now() - stream->last > UNFINISHED) {
        /* memlogd takes the end of the pipe for the end of the line. */
        close(stream->memlogd);
        stream->memlogd = -1;
        stream->cut = false;
        file_close(stream);
    }
    return false;
}

void stream_close(struct stream *stream)
{
    for (int i = 0; i < 64 && stream->from >= 0 && !stream->held && take(stream); i++)
        ;
    if (stream->held) {
        poll(&(struct pollfd){.fd = stream->memlogd, .events = POLLOUT}, 1, 1000);
        pass_held(stream);
    }
    file_close(stream);
    if (stream->from >= 0)
        close(stream->from);
    if (stream->memlogd >= 0)
        close(stream->memlogd);
    free(stream->held);
    free(stream->path);
    free(stream->tail);
}

void stream_forget(const char *path)
{
    scoped_free char *fifo = fifo_of(path), *tail = tail_of(path), *old = format("%s.1", tail);
    unlink(fifo);
    unlink(tail);
    unlink(old);
}

char *stream_tail(const char *path)
{
    char *tail = path ? tail_of(path) : NULL;
    if (tail && exists(tail))
        return tail;
    free(tail);
    return path ? must_dup(path) : NULL;
}
