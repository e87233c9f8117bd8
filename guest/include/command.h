/* Command lines of the kit's programs, and what they say. */
#pragma once

#include "util.h"

struct flag {
    const char *names;   /* "force", or "l luks" */
    const char **text;   /* takes a value, or */
    bool *yes;           /* takes none, or =true, =false */
    const char ***list;  /* with a count: may be given several times */
    size_t *count;
};

/* Reads -name, --name, -name=value, -name value. Returns what is left, NULL-ended, its number in `count`; the caller
 * frees the list. After a message and the usage it does not return. */
const char **command_read(const struct flag *flags, size_t flag_count, int argc, char **argv, size_t *count);
/* Says who speaks, and how it is called. */
void program_is(const char *name, const char *usage);
/* One line: "NAME: ...". */
void tell(const char *fmt, ...) PRINTF(1, 2);
/* The usage, exit status 2. */
_Noreturn void usage(const char *fmt, ...) PRINTF(1, 2);
/* `10`, `10K`, `10M`, `10G`, `10T` in bytes; a plain number is in `unit`. False: it is none. */
bool size_parse(const char *text, uint64_t unit, uint64_t *bytes);
/* "64 MiB", in a buffer of its own. */
const char *size_text(uint64_t bytes);

/* Runs a program and waits. Its exit status; -1 after a message when it can't be started. */
int run(const char *const *argv);
