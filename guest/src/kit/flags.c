#include "flags.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Noreturn void usage(FILE *to, int status, const char *program, const char *after, const struct flag *flags,
                            size_t count)
{
    static const char *const kinds[] = {"", " NUMBER", " TEXT"};
    fprintf(to, "usage: %s [FLAG...]%s%s\n", program, *after ? " " : "", after);
    for (size_t i = 0; i < count; i++)
        fprintf(to, "  -%s%s\n        %s\n", flags[i].name, kinds[flags[i].kind], flags[i].help);
    exit(status);
}

/* Sets a value. NULL, or what is wrong with it. */
static const char *set(const struct flag *flag, const char *text)
{
    if (flag->kind == FLAG_TEXT) {
        *(const char **)flag->value = text;
        return NULL;
    }
    if (flag->kind == FLAG_BOOL) {
        bool yes = !strcmp(text, "true") || !strcmp(text, "1");
        *(bool *)flag->value = yes;
        return yes || !strcmp(text, "false") || !strcmp(text, "0") ? NULL : "is not true or false";
    }
    char *end;
    errno = 0;
    long number = strtol(text, &end, 0);
    if (errno || end == text || *end)
        return "is not a number";
    *(long *)flag->value = number;
    return NULL;
}

int flags_read(const char *program, const char *after, const struct flag *flags, size_t count, int argc, char **argv)
{
    int at = 1;
    while (at < argc && argv[at][0] == '-' && argv[at][1]) {
        const char *word = argv[at++] + 1;
        word += *word == '-';
        if (!*word)
            return at; /* -- */
        size_t length = strcspn(word, "=");
        const struct flag *flag = NULL;
        for (size_t i = 0; i < count; i++)
            if (strlen(flags[i].name) == length && memcmp(flags[i].name, word, length) == 0)
                flag = &flags[i];
        if (!flag) {
            bool help = !strcmp(word, "h") || !strcmp(word, "help");
            if (!help)
                fprintf(stderr, "%s: there is no flag -%s\n", program, word);
            usage(help ? stdout : stderr, help ? 0 : 2, program, after, flags, count);
        }
        const char *value = word[length] ? word + length + 1
                            : flag->kind == FLAG_BOOL ? "true"
                            : at < argc ? argv[at++] : NULL;
        const char *wrong = value ? set(flag, value) : "needs a value";
        if (wrong) {
            fprintf(stderr, "%s: -%s %s%s%s\n", program, flag->name, value ? value : "", value ? ": " : "", wrong);
            exit(2);
        }
    }
    return at;
}
