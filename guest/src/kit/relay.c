/* Bytes between two sockets, both ways. */
#define _GNU_SOURCE
#include "relay.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

struct way {
    int from, to;
    char bytes[16384];
    size_t used, sent;
    bool ended;
};

static bool waits(const struct way *way)
{
    return way->used > way->sent;
}

/* Moves what can be moved now. False: the connection is broken. */
static bool move(struct way *way)
{
    if (!waits(way) && !way->ended) {
        ssize_t got = recv(way->from, way->bytes, sizeof(way->bytes), MSG_DONTWAIT);
        if (got < 0)
            return errno == EAGAIN || errno == EINTR;
        way->used = (size_t)got;
        way->sent = 0;
        if (got == 0) {
            way->ended = true;
            shutdown(way->to, SHUT_WR);
        }
    }
    if (waits(way)) {
        ssize_t done = send(way->to, way->bytes + way->sent, way->used - way->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0)
            return errno == EAGAIN || errno == EINTR;
        way->sent += (size_t)done;
    }
    return true;
}

static bool side_ready(const struct pollfd *side)
{
    return side->revents != 0;
}

void relay(int left, int right)
{
    struct way ways[2] = {{.from = left, .to = right}, {.from = right, .to = left}};
    while (!ways[0].ended || !ways[1].ended) {
        struct pollfd sides[2] = {{.fd = left}, {.fd = right}};
        for (int i = 0; i < 2; i++) {
            if (waits(&ways[i]))
                sides[1 - i].events |= POLLOUT;
            else if (!ways[i].ended)
                sides[i].events |= POLLIN;
        }
        /* A side that wants nothing would say "hung up" again and again. */
        for (int i = 0; i < 2; i++)
            if (!sides[i].events)
                sides[i].fd = -1;
        if (poll(sides, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            return;
        }
        if ((side_ready(&sides[0]) || side_ready(&sides[1])) && (!move(&ways[0]) || !move(&ways[1])))
            return;
    }
}
