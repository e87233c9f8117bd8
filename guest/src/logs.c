#define _GNU_SOURCE
#include "memlog.h"
#include "service.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define TAIL_BYTES 8192
#define LOGGER_LIMIT (4 << 20)
#define MEMLOG_SECONDS 2 /* that memlogd may be silent */

int log_open(const char *path, bool truncate)
{
    make_parents(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (truncate ? O_TRUNC : 0), 0644);
    return fd >= 0 ? fd : open("/dev/null", O_WRONLY | O_CLOEXEC);
}

/* A log is known to memlogd by its file's name: NAME.out.log is NAME.out. */
static char *log_name(const char *path)
{
    const char *name = base_name(path);
    size_t length = strlen(name);
    return format("%.*s", (int)(ends_with(name, ".log") ? length - 4 : length), name);
}

int log_stream(const char *path, bool truncate)
{
    int ends[2];
    if (exists(MEMLOG_LOGS) && pipe2(ends, O_CLOEXEC) == 0) {
        scoped_free char *name = log_name(path);
        int passed = memlog_pass(MEMLOG_LOGS, name, ends[0]);
        close(ends[0]);
        if (passed == 0)
            return ends[1];
        close(ends[1]);
    }
    return log_open(path, truncate);
}

/* Steps to the next line that memlogd has of the two logs (NULL: none). */
static bool next_of(struct memlog *log, const char *out, const char *err)
{
    while (memlog_next(log) > 0)
        if ((out && !strcmp(log->source, out)) || (err && !strcmp(log->source, err)))
            return true;
    return false;
}

static void copy_file(const char *path)
{
    scoped_free char *text = read_file(path, 1 << 20, NULL);
    if (text && *text)
        write_all(STDOUT_FILENO, text, strlen(text));
}

void log_show(const char *out, const char *err)
{
    scoped_memlog log = {.fd = -1};
    scoped_free char *out_name = log_name(out), *err_name = log_name(err);
    if (exists(MEMLOG_QUERIES) && memlog_open(&log, MEMLOG_QUERIES, MEMLOG_DUMP, MEMLOG_SECONDS) == 0)
        while (next_of(&log, out_name, err_name)) {
            scoped_free char *line = format("%s\n", log.message);
            write_all(STDOUT_FILENO, line, strlen(line));
        }
    copy_file(out);
    copy_file(err);
}

void log_cap(const char *path, size_t limit)
{
    /* The writer keeps its descriptor, so the file is copied and cut, not renamed. It was opened to append. */
    struct stat info;
    if (stat(path, &info) < 0 || !S_ISREG(info.st_mode) || (size_t)info.st_size <= limit)
        return;
    scoped_free char *old = format("%s.1", path);
    scoped_fd from = open(path, O_RDWR | O_CLOEXEC);
    scoped_fd to = open(old, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (from < 0)
        return;
    char piece[65536];
    off_t at = info.st_size - (off_t)limit;
    for (ssize_t got; to >= 0 && (got = pread(from, piece, sizeof(piece), at)) > 0; at += got)
        if (write_all(to, piece, (size_t)got) < 0)
            break;
    (void)!ftruncate(from, 0);
}

static char *read_end(const char *path)
{
    scoped_fd fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
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

/* The last lines that memlogd has of both, put end to end in the tail's text. */
static bool tail_ask(struct tail *tail, const char *out, const char *err)
{
    scoped_memlog log = {.fd = -1};
    scoped_free char *out_name = out ? log_name(out) : NULL, *err_name = err ? log_name(err) : NULL;
    char *last[TAIL_LINES] = {0};
    size_t count = 0;
    *tail = (struct tail){0};
    if (!exists(MEMLOG_QUERIES) || memlog_open(&log, MEMLOG_QUERIES, MEMLOG_DUMP, MEMLOG_SECONDS) < 0)
        return false;
    while (next_of(&log, out_name, err_name))
        if (*log.message) {
            free(last[count % TAIL_LINES]);
            last[count++ % TAIL_LINES] = format("%.*s", TAIL_BYTES / TAIL_LINES, log.message);
        }
    tail->count = count < TAIL_LINES ? count : TAIL_LINES;
    char *to = tail->text[0] = must_alloc(TAIL_BYTES + 2 * TAIL_LINES);
    for (size_t i = 0; i < tail->count; i++) {
        tail->lines[i] = to;
        to = stpcpy(to, last[(count - tail->count + i) % TAIL_LINES]) + 1;
    }
    for (size_t i = 0; i < TAIL_LINES; i++)
        free(last[i]);
    return count > 0;
}

void tail_read(struct tail *tail, const char *out, const char *err)
{
    if (tail_ask(tail, out, err))
        return;
    tail_free(tail);
    *tail = (struct tail){.text = {read_end(out), read_end(err)}};
    add_lines(tail, tail->text[1]);
    add_lines(tail, tail->text[0]);
}

void tail_free(struct tail *tail)
{
    free(tail->text[0]);
    free(tail->text[1]);
}

/* Copies one pipe's bytes to its file; false at its end. */
static bool copy(int from, int *to, const char *path)
{
    char piece[16384];
    ssize_t got = read(from, piece, sizeof(piece));
    if (got <= 0)
        return got < 0 && errno == EINTR;
    struct stat info;
    if (fstat(*to, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > LOGGER_LIMIT) {
        scoped_free char *old = format("%s.1", path);
        rename(path, old);
        close(*to);
        *to = log_open(path, false);
    }
    write_all(*to, piece, (size_t)got);
    return true;
}

/* Has memlogd read both. We stay until both have ended, because the shim takes our end for theirs. */
static bool hand_over(const char *name)
{
    scoped_free char *out = format("%s.out", name);
    struct pollfd pipes[2] = {{.fd = 3}, {.fd = 4}};
    if (memlog_pass(MEMLOG_LOGS, out, 3) < 0 || memlog_pass(MEMLOG_LOGS, name, 4) < 0)
        return false;
    close(5);
    while (pipes[0].fd >= 0 || pipes[1].fd >= 0)
        if (poll(pipes, 2, -1) >= 0)
            for (int i = 0; i < 2; i++)
                if (pipes[i].revents)
                    pipes[i].fd = -1;
    return true;
}

int logger_main(const char *name)
{
    /* containerd's shim gives the container's output at 3, its errors at 4, and waits until 5 is closed. */
    scoped_free char *out = format("/var/log/%s.out.log", name), *err = format("/var/log/%s.log", name);
    const char *const paths[2] = {out, err};
    if (exists(MEMLOG_LOGS) && hand_over(name))
        return 0;
    int files[2] = {log_open(out, false), log_open(err, false)};
    struct pollfd pipes[2] = {{.fd = 3, .events = POLLIN}, {.fd = 4, .events = POLLIN}};
    close(5);
    while (pipes[0].fd >= 0 || pipes[1].fd >= 0) {
        if (poll(pipes, 2, -1) < 0 && errno != EINTR)
            return 1;
        for (int i = 0; i < 2; i++)
            if (pipes[i].fd >= 0 && pipes[i].revents && !copy(pipes[i].fd, &files[i], paths[i]))
                pipes[i].fd = -1;
    }
    return 0;
}
