/* The log in memory, as those see it who give to it or ask it. */
#include "memlog.h"
#include "json.h"
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

static int open_socket(const char *path, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = 2};
    if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
                    connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

int memlog_pass(const char *socket, const char *name, int fd)
{
    scoped_fd to = open_socket(socket, SOCK_DGRAM);
    if (to < 0)
        return -1;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    size_t length = strlen(name);
    struct iovec body = {(void *)name, length < MEMLOG_NAME_MAX ? length : MEMLOG_NAME_MAX};
    struct msghdr message = {
        .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &fd, sizeof(int));
    return sendmsg(to, &message, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

int memlog_open(struct memlog *log, const char *socket, enum memlog_query query, int seconds)
{
    *log = (struct memlog){.fd = open_socket(socket, SOCK_STREAM)};
    unsigned char word = (unsigned char)query;
    struct timeval limit = {.tv_sec = seconds};
    if (log->fd < 0)
        return -1;
    if (setsockopt(log->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0 &&
        send(log->fd, &word, 1, MSG_NOSIGNAL) == 1)
        return 0;
    int error = errno;
    memlog_close(log);
    errno = error;
    return -1;
}

void memlog_close(struct memlog *log)
{
    if (log->fd >= 0)
        close(log->fd);
    free(log->text);
    free(log->message);
    *log = (struct memlog){.fd = -1};
}

/* Reads on; makes room first. What read() says. */
static ssize_t more(struct memlog *log)
{
    if (log->start) {
        memmove(log->text, log->text + log->start, log->used -= log->start);
        log->start = 0;
    }
    if (log->used > MEMLOG_REPLY_MAX) {
        log->passing = true;
        log->used = 0;
    }
    if (log->room - log->used < 4096) {
        log->room = log->room ? 2 * log->room : 16384;
        log->text = realloc(log->text, log->room + 1);
        free(log->message);
        log->message = must_alloc(log->room + 1);
        if (!log->text)
            abort();
    }
    ssize_t got = read(log->fd, log->text + log->used, log->room - log->used);
    if (got > 0)
        log->used += (size_t)got;
    return got;
}

/* A member's text; bytes of zero, which would end it here, become U+FFFD. False: there is none. */
static bool take_text(const struct json_document *line, const char *name, char *to, size_t room)
{
    const struct json *found = json_find(line, line->values, name);
    if (!found || found->kind != JSON_STRING)
        return false;
    size_t used = 0;
    for (size_t i = 0; i < found->length; i++) {
        const char *piece = found->text[i] ? found->text + i : "\xef\xbf\xbd";
        size_t size = found->text[i] ? 1 : 3;
        if (used + size >= room)
            break;
        memcpy(to + used, piece, size);
        used += size;
    }
    to[used] = 0;
    return true;
}

/* A line that isn't one of a log's is none of ours to judge: it is passed over. */
static bool take_line(struct memlog *log, const char *line, size_t length)
{
    scoped_json document;
    return json_read(&document, line, length) && document.values->kind == JSON_OBJECT &&
           take_text(&document, "time", log->time, sizeof(log->time)) &&
           take_text(&document, "source", log->source, sizeof(log->source)) &&
           take_text(&document, "msg", log->message, log->room + 1);
}

int memlog_next(struct memlog *log)
{
    for (;;) {
        char *end = log->used > log->start ? memchr(log->text + log->start, '\n', log->used - log->start) : NULL;
        if (!end) {
            ssize_t got = more(log);
            if (got <= 0)
                return (int)got;
            continue;
        }
        char *line = log->text + log->start;
        *end = 0;
        log->start = (size_t)(end + 1 - log->text);
        bool whole = !log->passing;
        log->passing = false;
        if (whole && take_line(log, line, (size_t)(end - line)))
            return 1;
    }
}
