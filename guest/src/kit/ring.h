/* The last lines of all logs, numbered from 0 as they come. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct entry {
    uint64_t time; /* nanoseconds since 1970 */
    size_t name_length, length;
    char *text; /* name and message, one behind the other */
};

struct ring {
    struct entry *entries;
    size_t room;
    uint64_t first, next; /* numbers of the oldest line that is there, and of the one that comes */
};

void ring_open(struct ring *ring, size_t lines);
void ring_close(struct ring *ring);
void ring_add(struct ring *ring, const char *name, const char *message, size_t length);
/* The line with that number as JSON with its newline. Returns what it took; RING_LINE says how much that may be. */
size_t ring_line(const struct ring *ring, uint64_t number, char *to);
/* The same for words of our own about the log. */
size_t ring_remark(const char *message, char *to);
#define RING_LINE(name, message) (6 * ((name) + (message)) + 128)
