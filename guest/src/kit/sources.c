/* memlogd: the descriptors that are read, and their lines. */
#define _GNU_SOURCE
#include "memlogd.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define TURN 64          /* descriptors taken in one go */
#define PIECE 16384
#define DRAIN (1 << 20) /* what a pipe holds at most, unless root changed that */

static void end_line(struct sources *all, struct source *one)
{
    if (one->used && one->line[one->used - 1] == '\r')
        one->used--;
    ring_add(all->ring, one->name, one->line, one->used);
    one->used = 0;
}

static void take_bytes(struct sources *all, struct source *one, const char *bytes, size_t length)
{
    while (length) {
        const char *end = memchr(bytes, '\n', length);
        size_t part = end ? (size_t)(end - bytes) : length, room = all->line_max - one->used;
        size_t taken = part < room ? part : room;
        memcpy(one->line + one->used, bytes, taken);
        one->used += taken;
        bytes += taken;
        length -= taken;
        if (taken == part && end) {
            bytes++;
            length--;
            end_line(all, one);
        } else if (taken < part) {
            end_line(all, one); /* too long: the rest is the next line */
        }
    }
}

/* Reads without waiting, whatever someone else does to the descriptor that we share with them. */
static ssize_t read_now(const struct source *one, char *piece, size_t size)
{
    if (one->socket)
        return recv(one->fd, piece, size, MSG_DONTWAIT);
    struct iovec to = {piece, size};
    ssize_t got = preadv2(one->fd, &to, 1, -1, RWF_NOWAIT);
    if (got >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS && errno != ESPIPE && errno != EINVAL))
        return got;
    return read(one->fd, piece, size); /* an older kernel; O_NONBLOCK was set */
}

static void remove_source(struct sources *all, size_t at)
{
    struct source *one = &all->items[at];
    if (one->used)
        end_line(all, one);
    close(one->fd);
    free(one->line);
    memmove(one, one + 1, (--all->count - at) * sizeof(*one)); /* in the order in which they came */
}

bool source_read(struct sources *all, size_t at, size_t limit)
{
    static char piece[PIECE];
    struct source *one = &all->items[at];
    for (size_t total = 0; total < limit;) {
        ssize_t got = read_now(one, piece, sizeof(piece));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return true;
        if (got <= 0) {
            remove_source(all, at);
            return false;
        }
        take_bytes(all, one, piece, (size_t)got);
        total += (size_t)got;
    }
    return true;
}

static void remark(struct sources *all, const char *fmt, const char *name)
{
    char text[MEMLOG_NAME_MAX + 64];
    int length = snprintf(text, sizeof(text), fmt, name);
    ring_add(all->ring, "memlogd", text, (size_t)length);
}

static void add_source(struct sources *all, int fd, const char *name)
{
    struct stat info;
    if (fstat(fd, &info) < 0 || (!S_ISFIFO(info.st_mode) && !S_ISSOCK(info.st_mode))) {
        remark(all, "%s: only pipes and sockets are read", name); /* others could make us wait */
        close(fd);
        return;
    }
    if (all->count == SOURCES_MAX) {
        remark(all, "%s: too many logs, this one is not read", name);
        close(fd);
        return;
    }
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0)
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    struct source *one = &all->items[all->count++];
    *one = (struct source){.fd = fd, .socket = S_ISSOCK(info.st_mode), .line = must_alloc(all->line_max)};
    snprintf(one->name, sizeof(one->name), "%s", *name ? name : "unnamed");
}

/* One datagram. False: there is none. */
static bool take_one(struct sources *all, int socket)
{
    char name[MEMLOG_NAME_MAX + 1];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct iovec body = {name, MEMLOG_NAME_MAX};
    struct msghdr message = {
        .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0)
        return errno == EINTR;
    name[got] = 0;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message); /* nothing else was asked for, so there is one at most */
    if (!rights || rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
        return true;
    for (size_t i = 0; i < (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(rights) + i * sizeof(int), sizeof(fd));
        if (i == 0)
            add_source(all, fd, name);
        else
            close(fd);
    }
    return true;
}

void sources_take(struct sources *all, int socket)
{
    for (int i = 0; i < TURN && take_one(all, socket); i++)
        ;
}

void sources_drain(struct sources *all, int socket)
{
    sources_take(all, socket);
    for (size_t i = 0; i < all->count;)
        i += source_read(all, i, DRAIN);
}
