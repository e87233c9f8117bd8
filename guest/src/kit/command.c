/* Command lines as LinuxKit's packages take them: with one dash or two, the value behind = or in the next word. */
#include "command.h"
#include "spawn.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *program = "?", *how = "";

void program_is(const char *name, const char *text)
{
    program = name;
    how = text;
}

static void tell_list(const char *fmt, va_list list)
{
    char line[1024];
    int start = snprintf(line, sizeof(line), "%s: ", program);
    vsnprintf(line + start, sizeof(line) - (size_t)start - 1, fmt, list);
    size_t length = strlen(line);
    line[length++] = '\n';
    fflush(stdout);
    (void)!write(STDERR_FILENO, line, length); /* one write: lines of different processes don't mix on the console */
}

void tell(const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    tell_list(fmt, list);
    va_end(list);
}

void usage(const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    tell_list(fmt, list);
    va_end(list);
    fprintf(stderr, "usage: %s\n", how);
    exit(2);
}

/* Is it one of the flag's names? They are separated by blanks. */
static bool is_called(const struct flag *flag, const char *name, size_t length)
{
    for (const char *at = flag->names; *at;) {
        size_t here = strcspn(at, " ");
        if (here == length && !memcmp(at, name, length))
            return true;
        at += here + (at[here] == ' ');
    }
    return false;
}

static void set_yes(bool *yes, const char *name, const char *value)
{
    if (!value || !strcmp(value, "true") || !strcmp(value, "1"))
        *yes = true;
    else if (!strcmp(value, "false") || !strcmp(value, "0"))
        *yes = false;
    else
        usage("-%s is true or false, not %s", name, value);
}

const char **command_read(const struct flag *flags, size_t flag_count, int argc, char **argv, size_t *count)
{
    const char **left = must_alloc(((size_t)argc + 1) * sizeof(*left));
    bool ended = false;
    *count = 0;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (ended || word[0] != '-' || !word[1]) {
            left[(*count)++] = word;
            continue;
        }
        if (!strcmp(word, "--")) {
            ended = true;
            continue;
        }
        const char *name = word + 1 + (word[1] == '-'), *value = strchr(name, '=');
        size_t length = value ? (size_t)(value - name) : strlen(name);
        const struct flag *flag = NULL;
        for (size_t j = 0; j < flag_count && !flag; j++)
            if (is_called(&flags[j], name, length))
                flag = &flags[j];
        if (!flag)
            usage("%s is not an option", word);
        value = value ? value + 1 : NULL;
        if (flag->yes) {
            set_yes(flag->yes, flag->names, value);
            continue;
        }
        if (!value && i + 1 == argc)
            usage("%s needs a value", word);
        value = value ? value : argv[++i];
        if (flag->list)
            *APPEND(*flag->list, *flag->count) = value;
        else
            *flag->text = value;
    }
    return left;
}

bool size_parse(const char *text, uint64_t unit, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    const char *letter = *end ? strchr(units, *end & ~0x20) : NULL;
    if (letter) {
        unit = 1024;
        for (const char *at = units; at < letter; at++)
            unit *= 1024;
        end++;
    }
    if (errno || *end || number > INT64_MAX / unit)
        return false;
    *bytes = number * unit;
    return true;
}

const char *size_text(uint64_t bytes)
{
    static char text[32];
    if (bytes >= 10ULL << 30)
        snprintf(text, sizeof(text), "%llu GiB", (unsigned long long)(bytes >> 30));
    else
        snprintf(text, sizeof(text), "%llu MiB", (unsigned long long)(bytes >> 20));
    return text;
}

int run(const char *const *argv)
{
    int status = spawn_wait(&(struct spawn){.argv = argv});
    if (status < 0) {
        tell("%s can't be started: %s", argv[0], strerror(errno));
        return -1;
    }
    return status_code(status);
}
