/* memlogd: the lines that are kept, the newest of them. */
#include "ring.h"
#include "json.h"
#include "util.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

void ring_open(struct ring *ring, size_t lines)
{
    *ring = (struct ring){.entries = must_alloc(lines * sizeof(*ring->entries)), .room = lines};
}

void ring_close(struct ring *ring)
{
    for (size_t i = 0; i < ring->room; i++)
        free(ring->entries[i].text);
    free(ring->entries);
}

static uint64_t clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

void ring_add(struct ring *ring, const char *name, const char *message, size_t length)
{
    struct entry *entry = &ring->entries[ring->next % ring->room];
    size_t name_length = strlen(name);
    free(entry->text);
    *entry = (struct entry){clock_now(), name_length, length, must_alloc(name_length + length)};
    memcpy(entry->text, name, name_length);
    if (length)
        memcpy(entry->text + name_length, message, length);
    ring->next++;
    if (ring->next - ring->first > ring->room)
        ring->first = ring->next - ring->room;
}

static size_t line(char *to, uint64_t time, const char *name, size_t name_length, const char *message, size_t length)
{
    char *start = to;
    struct tm parts;
    time_t seconds = (time_t)(time / 1000000000U);
    gmtime_r(&seconds, &parts);
    to += strftime(to, 40, "{\"time\":\"%Y-%m-%dT%H:%M:%S", &parts);
    to += sprintf(to, ".%09uZ\",\"source\":", (unsigned)(time % 1000000000U));
    to += json_quote(to, name, name_length);
    to += sprintf(to, ",\"msg\":");
    to += json_quote(to, message, length);
    to += sprintf(to, "}\n");
    return (size_t)(to - start);
}

size_t ring_line(const struct ring *ring, uint64_t number, char *to)
{
    const struct entry *entry = &ring->entries[number % ring->room];
    return line(to, entry->time, entry->text, entry->name_length, entry->text + entry->name_length, entry->length);
}

size_t ring_remark(const char *message, char *to)
{
    return line(to, clock_now(), "memlogd", strlen("memlogd"), message, strlen(message));
}
