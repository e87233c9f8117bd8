/* The console, for programs that must never wait for it: Ctrl-S stops a terminal for as long as somebody likes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* From now on say() keeps up to 4 KiB back while the console takes nothing, and drops what comes then. */
void console_open(void);
/* Tries again with what say() kept back. Costs nothing when there is nothing. */
void console_flush(void);
/* Bytes on standard output. False: it stopped taking any for two seconds, and the rest is dropped. */
bool console_show(const char *bytes, size_t length);
