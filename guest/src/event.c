/* One event of the boot report as a line of JSON. */
#include "event.h"
#include "util.h"

#include <stdio.h>
#include <string.h>

struct text {
    char *at;
    size_t used, room;
    bool full;
};

static void put(struct text *to, const char *bytes, size_t length)
{
    if (to->full || length > to->room - to->used) {
        to->full = true;
        return;
    }
    memcpy(to->at + to->used, bytes, length);
    to->used += length;
}

static void puts_text(struct text *to, const char *text)
{
    put(to, text, strlen(text));
}

/* The string in quotes; stops between characters before it takes more than `limit` bytes. */
static void put_string(struct text *to, const char *text, size_t limit)
{
    puts_text(to, "\"");
    size_t start = to->used;
    for (const unsigned char *at = (const unsigned char *)text; *at && !to->full;) {
        char piece[8];
        size_t length = utf8_length((const char *)at), size;
        if (length == 0)
            size = (size_t)sprintf(piece, "\\ufffd");
        else if (*at == '"' || *at == '\\')
            size = (size_t)sprintf(piece, "\\%c", *at);
        else if (*at < 0x20 || *at == 0x7f)
            size = (size_t)sprintf(piece, "\\u%04x", *at);
        else
            memcpy(piece, at, size = length);
        if (to->used - start + size > limit)
            break;
        put(to, piece, size);
        at += length ? length : 1;
    }
    puts_text(to, "\"");
}

static void put_format(struct text *to, const char *fmt, ...) PRINTF(2, 3);
static void put_format(struct text *to, const char *fmt, ...)
{
    char piece[64];
    va_list list;
    va_start(list, fmt);
    int length = vsnprintf(piece, sizeof(piece), fmt, list);
    va_end(list);
    put(to, piece, length < 0 ? 0 : (size_t)length);
}

static void put_log(struct text *to, const struct event *event)
{
    /* Try with all lines, then without the oldest, until it fits. */
    for (size_t first = 0; first < event->log_count; first++) {
        struct text tried = *to;
        puts_text(&tried, ", \"log\": [");
        for (size_t i = first; i < event->log_count; i++) {
            if (i > first)
                puts_text(&tried, ", ");
            put_string(&tried, event->log[i], 400);
        }
        puts_text(&tried, "]");
        if (!tried.full) {
            *to = tried;
            return;
        }
    }
}

size_t event_line(char line[static EVENT_MAX], double t, const struct event *event)
{
    struct text to = {.at = line, .room = EVENT_MAX - 2};
    put_format(&to, "{\"t\": %.6f, \"event\": ", t);
    put_string(&to, event->event, 32);
    puts_text(&to, ", \"step\": ");
    put_string(&to, event->step, 300);
    if (event->ended || event->status || event->signal)
        put_format(&to, ", \"status\": %d, \"signal\": %d", event->status, event->signal);
    if (event->ok != UNSAID)
        puts_text(&to, event->ok == YES ? ", \"ok\": true" : ", \"ok\": false");
    if (event->health && *event->health) {
        puts_text(&to, ", \"health\": ");
        put_string(&to, event->health, 16);
    }
    if (event->ms > 0)
        put_format(&to, ", \"ms\": %.1f", event->ms);
    if (event->message && *event->message) {
        puts_text(&to, ", \"message\": ");
        put_string(&to, event->message, 1000);
    }
    put_log(&to, event);
    memcpy(line + to.used, "}\n", 2);
    return to.used + 2;
}
