/* memlogd: those who ask for the log, each served as fast as it reads. */
#define _GNU_SOURCE
#include "memlogd.h"
#include "util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>

#define SILENCE 5.0 /* seconds in which a question has to come */

static size_t line_room(const struct readers *all)
{
    return RING_LINE((size_t)MEMLOG_NAME_MAX, all->line_max);
}

void readers_accept(struct readers *all, int socket)
{
    int fd = accept4(socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (all->count == READERS_MAX) {
        close(fd);
        return;
    }
    all->items[all->count++] = (struct reader){.fd = fd, .since = now()};
}

void reader_remove(struct readers *all, size_t at)
{
    close(all->items[at].fd);
    free(all->items[at].out);
    all->items[at] = all->items[--all->count];
}

void readers_expire(struct readers *all)
{
    for (size_t i = 0; i < all->count;)
        if (!all->items[i].asked && now() - all->items[i].since > SILENCE)
            reader_remove(all, i);
        else
            i++;
}

static bool has_more(const struct readers *all, const struct reader *reader)
{
    return reader->sent < reader->used || reader->at < (reader->follows ? all->ring->next : reader->end);
}

short reader_events(const struct readers *all, const struct reader *reader)
{
    return !reader->asked ? POLLIN : has_more(all, reader) ? POLLOUT : 0;
}

static bool take_question(const struct readers *all, struct reader *reader, struct sources *sources, int logs)
{
    unsigned char word;
    ssize_t got = recv(reader->fd, &word, 1, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    if (got == 0 || word > MEMLOG_DUMP_AND_FOLLOW)
        return false;
    /* Who asks gets everything that was written before the question, also what we haven't read by now. */
    sources_drain(sources, logs);
    reader->asked = true;
    reader->follows = word != MEMLOG_DUMP;
    reader->end = all->ring->next;
    reader->at = word == MEMLOG_FOLLOW ? all->ring->next : all->ring->first;
    reader->out = must_alloc(2 * line_room(all));
    return true;
}

/* As many lines as the buffer holds, a remark first when some have gone unread. */
static void fill(const struct readers *all, struct reader *reader)
{
    size_t room = 2 * line_room(all);
    uint64_t first = all->ring->first, end = reader->follows ? all->ring->next : reader->end;
    reader->used = reader->sent = 0;
    if (reader->at < first) {
        char text[80];
        snprintf(text, sizeof(text), "%" PRIu64 " lines were lost: they were not read in time", first - reader->at);
        reader->used = ring_remark(text, reader->out);
        reader->at = first;
    }
    while (reader->at < end && room - reader->used >= line_room(all))
        reader->used += ring_line(all->ring, reader->at++, reader->out + reader->used);
}

bool reader_step(struct readers *all, struct reader *reader, short events, struct sources *sources, int logs)
{
    if (!reader->asked && events & POLLIN) {
        if (!take_question(all, reader, sources, logs))
            return false;
    } else if (events & (POLLHUP | POLLERR | POLLNVAL)) {
        return false;
    }
    for (int turns = 0; turns < 16 && has_more(all, reader); turns++) {
        if (reader->sent == reader->used)
            fill(all, reader);
        size_t left = reader->used - reader->sent;
        ssize_t done = send(reader->fd, reader->out + reader->sent, left, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done < 0)
            return errno == EAGAIN || errno == EINTR;
        reader->sent += (size_t)done;
    }
    return !reader->asked || reader->follows || has_more(all, reader);
}
