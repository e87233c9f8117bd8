/* Command lines of the guest's programs, and what they say. */
#pragma once

#include "util.h"

struct flag {
    const char *names;   /* "force", or "l luks" */
    const char **text;   /* takes a value, or */
    long *number;        /* takes one: decimal, 0x hexadecimal, or 0 octal; or */
    bool *yes;           /* takes none, or =true, =false */
    const char ***list;  /* with a count: may be given several times */
    size_t *count;
    const char *help;    /* a line of the usage, or NULL */
};

/* Reads -name, --name, -name=value, -name value, and -abc as -a -b -c where these take no value. Returns what is left,
 * NULL-ended, its number in `count`; the caller frees the list. After a message and the usage it does not return: with
 * status 2, or 0 when -h or -help asked for it. */
const char **command_read(const struct flag *flags, size_t flag_count, int argc, char **argv, size_t *count);
/* The same for programs that take nothing but flags. */
void command_none(const struct flag *flags, size_t flag_count, int argc, char **argv);
/* The same for programs that start another one: stops at the first word that is no flag, and returns where it stands. */
int command_start(const struct flag *flags, size_t flag_count, int argc, char **argv);
/* Says who speaks, and how it is called. */
void program_is(const char *name, const char *usage);
/* One line: "NAME: ...". */
void tell(const char *fmt, ...) PRINTF(1, 2);
/* The usage, exit status 2. */
_Noreturn void usage(const char *fmt, ...) PRINTF(1, 2);
/* A decimal number and nothing else, from `least` to `most`. False: it is none. */
bool number_parse(const char *text, uint64_t least, uint64_t most, uint64_t *number);
/* `10`, `10K`, `10M`, `10G`, `10T` in bytes; a plain number is in `unit`. False: it is none. */
bool size_parse(const char *text, uint64_t unit, uint64_t *bytes);
/* "64 MiB", in a buffer of its own. */
const char *size_text(uint64_t bytes);
