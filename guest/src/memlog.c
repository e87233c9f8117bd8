/* Talking to memlogd: giving it what to read, and asking it. */
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

int memlog_next(struct memlog *log)
{
    for (;;) {
        char *line = log->text + log->start;
        char *end = log->used > log->start ? memchr(line, '\n', log->used - log->start) : NULL;
        if (!end) {
            ssize_t got = more(log);
            if (got <= 0)
                return (int)got;
            continue;
        }
        *end = 0;
        log->start = (size_t)(end + 1 - log->text);
        bool whole = !log->passing;
        log->passing = false;
        /* A line that isn't one of a log's is none of ours to judge: it is passed over. */
        if (whole && json_text(line, "time", log->time, sizeof(log->time)) &&
            json_text(line, "source", log->source, sizeof(log->source)) &&
            json_text(line, "msg", log->message, log->room + 1))
            return 1;
    }
}
