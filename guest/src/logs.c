/* Containers' logs: their last lines for the report, and all of an onboot container's for the console. */
#define _GNU_SOURCE
#include "console.h"
#include "service.h"
#include "stream.h"
#include "util.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define TAIL_BYTES 8192
#define SHOWN_MAX (1 << 20) /* bytes of each log that the console gets */

int log_open(const char *path, bool truncate)
{
    make_parents(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (truncate ? O_TRUNC : 0), 0644);
    return fd >= 0 ? fd : open("/dev/null", O_WRONLY | O_CLOEXEC);
}

static off_t size_of(int fd)
{
    struct stat info;
    return fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) ? info.st_size : 0;
}

/* False: the console takes no more. */
static bool show_from(int fd, off_t at)
{
    char piece[16384];
    for (ssize_t got; (got = pread(fd, piece, sizeof(piece), at)) > 0; at += got)
        if (!console_show(piece, (size_t)got))
            return false;
    return true;
}

void log_show(const char *path, unsigned long long total)
{
    scoped_free char *now_in = stream_tail(path), *before_in = format("%s.1", now_in);
    scoped_fd current = open(now_in, O_RDONLY | O_CLOEXEC | O_NONBLOCK), old = open(before_in, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    off_t new = size_of(current), before = size_of(old);
    off_t skip = new + before > SHOWN_MAX ? new + before - SHOWN_MAX : 0;
    unsigned long long shown = (unsigned long long)(new + before - skip);
    if (total > shown) {
        scoped_free char *note = format("linuxkit: %llu bytes of output, of which the last %llu follow; more may be in %s\n",
                                        total, shown, path);
        console_show(note, strlen(note));
    }
    if ((before <= skip || show_from(old, skip)) && show_from(current, skip > before ? skip - before : 0))
        return;
    say("the console took only a part of %s", path);
}

static char *read_end(const char *path)
{
    scoped_fd fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0 || !S_ISREG(info.st_mode))
        return NULL;
    off_t start = info.st_size > TAIL_BYTES ? info.st_size - TAIL_BYTES : 0;
    char *text = must_alloc(TAIL_BYTES + 1);
    ssize_t got = pread(fd, text, TAIL_BYTES, start);
    if (got < 0)
        got = 0;
    for (ssize_t i = 0; i < got; i++)
        if (!text[i])
            text[i] = ' ';
    text[got] = 0;
    return text;
}

/* Puts the last lines of `text` in front of those there already; empty ones don't count. */
static void add_lines(struct tail *tail, char *text)
{
    size_t length = text ? strlen(text) : 0;
    while (length && tail->count < TAIL_LINES) {
        while (length && (text[length - 1] == '\n' || text[length - 1] == '\r'))
            text[--length] = 0;
        if (!length)
            break;
        while (length && text[length - 1] != '\n')
            length--;
        memmove(tail->lines + 1, tail->lines, tail->count * sizeof(*tail->lines));
        tail->lines[0] = text + length;
        tail->count++;
    }
}

void tail_read(struct tail *tail, const char *out, const char *err)
{
    const char *const paths[2] = {err, out};
    *tail = (struct tail){0};
    for (size_t i = 0; i < COUNT(paths); i++) {
        scoped_free char *path = stream_tail(paths[i]), *old = path ? format("%s.1", path) : NULL;
        add_lines(tail, tail->text[2 * i] = read_end(path));
        if (tail->count < TAIL_LINES) /* the file may have begun anew just now */
            add_lines(tail, tail->text[2 * i + 1] = read_end(old));
    }
}

void tail_free(struct tail *tail)
{
    for (size_t i = 0; i < COUNT(tail->text); i++)
        free(tail->text[i]);
}
