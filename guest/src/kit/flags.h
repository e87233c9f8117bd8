/* Command lines as LinuxKit's programs have them: -name VALUE, -name=VALUE, one dash or two, until another word comes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct flag {
    const char *name;
    enum { FLAG_BOOL, FLAG_NUMBER, FLAG_TEXT } kind;
    void *value; /* bool, long, const char * */
    const char *help;
};

/* Fills the values in and returns where the other words begin. What it can't make sense of ends the program with
 * status 2; -h and -help with 0, saying what there is. `after` names the words behind the flags. */
int flags_read(const char *program, const char *after, const struct flag *flags, size_t count, int argc, char **argv);
