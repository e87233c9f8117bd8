/* What the program was told, and what it says. */
#include "metadata.h"

#include <stdio.h>
#include <string.h>

struct metadata_options metadata_options = {.config = CONFIG, .root = "", .progress = -1};

static void line(const char *fmt, va_list list)
{
    char text[1024] = "metadata: ";
    size_t start = strlen(text), room = sizeof(text) - start - 1;
    int wanted = vsnprintf(text + start, room, fmt, list);
    size_t length = start + (wanted < 0 ? 0 : (size_t)wanted >= room ? room - 1 : (size_t)wanted);
    for (size_t i = start; i < length; i++) /* strangers' words are in it */
        if ((unsigned char)text[i] < ' ' || text[i] == 127)
            text[i] = '?';
    text[length++] = '\n';
    (void)!write(STDERR_FILENO, text, length);
}

void note(const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    line(fmt, list);
    va_end(list);
}

void detail(const char *fmt, ...)
{
    if (!metadata_options.verbose)
        return;
    va_list list;
    va_start(list, fmt);
    line(fmt, list);
    va_end(list);
}

char *host_path(const char *path)
{
    return format("%s%s", metadata_options.root, path);
}
