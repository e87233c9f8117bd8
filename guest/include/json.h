/* JSON, as far as log lines and events need it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Writes `length` bytes of text as a string in quotes; bytes that are not UTF-8 become U+FFFD. Returns what it took:
 * at most 6 * length + 2, for which there has to be room. Nothing closes it. */
size_t json_quote(char *to, const char *text, size_t length);

/* The text of one of an object's own members, not of those inside others; cut to its room, always closed. False: the
 * object has no such member, its value is no text, or what stands before it is not JSON. */
bool json_text(const char *object, const char *key, char *value, size_t room);
