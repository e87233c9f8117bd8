/* Command lines as LinuxKit's programs take them: with one dash or two, the value behind = or in the next word. */
#include "command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
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

struct table {
    const struct flag *flags;
    size_t count;
};

static const struct flag *flag_of(const struct table *table, const char *name, size_t length)
{
    for (size_t i = 0; i < table->count; i++)
        if (is_called(&table->flags[i], name, length))
            return &table->flags[i];
    return NULL;
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

static void set_number(long *number, const char *word, const char *value)
{
    char *end;
    errno = 0;
    *number = strtol(value, &end, 0);
    if (errno || end == value || *end || *value <= ' ')
        usage("%s %s: it is not a number", word, value);
}

/* -abc, where each letter is a flag without a value. False: it is not that. */
static bool set_letters(const struct table *table, const char *word)
{
    if (word[1] == '-')
        return false;
    for (const char *at = word + 1; *at; at++) {
        const struct flag *flag = flag_of(table, at, 1);
        if (!flag || !flag->yes)
            return false;
    }
    for (const char *at = word + 1; *at; at++)
        *flag_of(table, at, 1)->yes = true;
    return true;
}

static void set_value(const struct flag *flag, const char *word, const char *value)
{
    if (flag->list)
        *APPEND(*flag->list, *flag->count) = value;
    else if (flag->number)
        set_number(flag->number, word, value);
    else
        *flag->text = value;
}

static _Noreturn void help(const struct table *table)
{
    printf("usage: %s\n", how);
    for (size_t i = 0; i < table->count; i++) {
        const struct flag *flag = &table->flags[i];
        if (flag->help)
            printf("  -%s%s\n        %s\n", flag->names, flag->yes ? "" : flag->number ? " NUMBER" : " TEXT", flag->help);
    }
    exit(fflush(stdout) == EOF);
}

/* Reads the flag at `at`, with its value; returns where the next word stands. */
static int take(const struct table *table, int argc, char **argv, int at)
{
    const char *word = argv[at++], *name = word + 1 + (word[1] == '-'), *value = strchr(name, '=');
    size_t length = value ? (size_t)(value - name) : strlen(name);
    const struct flag *flag = flag_of(table, name, length);
    if (!flag && set_letters(table, word))
        return at;
    if (!flag && (!strcmp(name, "h") || !strcmp(name, "help")))
        help(table);
    if (!flag)
        usage("%s is not an option", word);
    value = value ? value + 1 : NULL;
    if (flag->yes) {
        set_yes(flag->yes, flag->names, value);
        return at;
    }
    if (!value && at == argc)
        usage("%s needs a value", word);
    set_value(flag, word, value ? value : argv[at++]);
    return at;
}

static bool is_flag(const char *word)
{
    return word[0] == '-' && word[1];
}

const char **command_read(const struct flag *flags, size_t flag_count, int argc, char **argv, size_t *count)
{
    const struct table table = {flags, flag_count};
    const char **left = must_alloc(((size_t)argc + 1) * sizeof(*left));
    bool ended = false;
    *count = 0;
    for (int i = 1; i < argc;) {
        if (ended || !is_flag(argv[i])) {
            left[(*count)++] = argv[i++];
        } else if (!strcmp(argv[i], "--")) {
            ended = true;
            i++;
        } else {
            i = take(&table, argc, argv, i);
        }
    }
    return left;
}

void command_none(const struct flag *flags, size_t flag_count, int argc, char **argv)
{
    size_t count;
    scoped_free const char **left = command_read(flags, flag_count, argc, argv, &count);
    if (count)
        usage("%s: no words behind the flags", left[0]);
}

int command_start(const struct flag *flags, size_t flag_count, int argc, char **argv)
{
    const struct table table = {flags, flag_count};
    for (int i = 1; i < argc;) {
        if (!strcmp(argv[i], "--"))
            return i + 1;
        if (!is_flag(argv[i]))
            return i;
        i = take(&table, argc, argv, i);
    }
    return argc;
}

bool number_parse(const char *text, uint64_t least, uint64_t most, uint64_t *number)
{
    *number = 0;
    for (const char *at = text; *at; at++) {
        if (*at < '0' || *at > '9' || *number > (UINT64_MAX - 9) / 10)
            return false;
        *number = *number * 10 + (uint64_t)(*at - '0');
    }
    return *text && *number >= least && *number <= most;
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
