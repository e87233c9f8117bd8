/* JSON: strings in quotes, and the text of one member of an object. */
#include "json.h"
#include "util.h"

#include <stdio.h>
#include <string.h>

size_t json_quote(char *to, const char *text, size_t length)
{
    char *start = to;
    *to++ = '"';
    for (size_t i = 0; i < length;) {
        unsigned char byte = (unsigned char)text[i];
        char piece[5] = {0};
        memcpy(piece, text + i, length - i < 4 ? length - i : 4); /* closed, so that nothing behind the text counts */
        size_t size = byte ? utf8_length(piece) : 1;
        if (size == 0)
            to += sprintf(to, "\\ufffd");
        else if (byte == '"' || byte == '\\')
            to += sprintf(to, "\\%c", byte);
        else if (byte < 0x20 || byte == 0x7f)
            to += sprintf(to, "\\u%04x", byte);
        else
            memcpy(to, text + i, size), to += size;
        i += size ? size : 1;
    }
    *to++ = '"';
    return (size_t)(to - start);
}

static const char *skip_blanks(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

/* Four hexadecimal digits, or -1. */
static int hex4(const char *at)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef", *found = at[i] ? strchr(digits, at[i] | 0x20) : NULL;
        if (!found || (at[i] < '0'))
            return -1;
        value = value << 4 | (int)(found - digits);
    }
    return value;
}

static size_t encode(char piece[static 4], unsigned code)
{
    if (code < 0x80) {
        piece[0] = (char)code;
        return 1;
    }
    size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = size - 1; i > 0; i--, code >>= 6)
        piece[i] = (char)(0x80 | (code & 0x3f));
    piece[0] = (char)((size == 2 ? 0xc0 : size == 3 ? 0xe0 : 0xf0) | code);
    return size;
}

/* Reads \uXXXX, both halves of a pair; what makes no character is U+FFFD. Returns what is behind it, or NULL. */
static const char *escaped_code(const char *at, char piece[static 4], size_t *size)
{
    int high = hex4(at), low;
    if (high < 0)
        return NULL;
    at += 4;
    unsigned code = (unsigned)high;
    bool pair = high >= 0xd800 && high < 0xdc00 && at[0] == '\\' && at[1] == 'u';
    if (pair && (low = hex4(at + 2)) >= 0xdc00 && low < 0xe000) {
        code = 0x10000 + ((unsigned)(high - 0xd800) << 10 | (unsigned)(low - 0xdc00));
        at += 6;
    } else if (high == 0 || (high >= 0xd800 && high < 0xe000)) {
        code = 0xfffd; /* a text here ends at a NUL, so it can't hold one */
    }
    *size = encode(piece, code);
    return at;
}

/* Reads the string that begins at its quote; `value` NULL: passes over it. Returns what is behind it, or NULL. */
static const char *string(const char *at, char *value, size_t room)
{
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    size_t used = 0;
    if (*at++ != '"')
        return NULL;
    for (bool full = false; *at != '"';) {
        char piece[4];
        size_t size = 1;
        piece[0] = *at;
        if (!*at)
            return NULL;
        if (*at != '\\') {
            at++;
        } else if (at[1] == 'u') {
            if (!(at = escaped_code(at + 2, piece, &size)))
                return NULL;
        } else {
            const char *found = at[1] ? strchr(names, at[1]) : NULL;
            if (!found)
                return NULL;
            piece[0] = meant[found - names];
            at += 2;
        }
        full |= value && used + size >= room;
        if (value && !full)
            memcpy(value + used, piece, size), used += size;
    }
    if (value)
        value[used] = 0;
    return at + 1;
}

/* Passes over any value: what is inside counts by its brackets only. */
static const char *skip_value(const char *at)
{
    int depth = 0;
    do {
        if (*at == '"') {
            if (!(at = string(at, NULL, 0)))
                return NULL;
            continue;
        }
        if (!*at)
            return NULL;
        if (depth == 0 && strchr(",}]", *at))
            return at;
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        at++;
    } while (depth > 0 || !strchr(",}]", *at));
    return at;
}

bool json_text(const char *object, const char *key, char *value, size_t room)
{
    const char *at = skip_blanks(object);
    if (room == 0 || *at++ != '{')
        return false;
    for (at = skip_blanks(at); *at == '"'; at = skip_blanks(at + 1)) {
        char name[64];
        if (!(at = string(at, name, sizeof(name))))
            return false;
        at = skip_blanks(at);
        if (*at++ != ':')
            return false;
        at = skip_blanks(at);
        if (strcmp(name, key) == 0)
            return *at == '"' && string(at, value, room);
        if (!(at = skip_value(at)) || *(at = skip_blanks(at)) != ',')
            return false;
    }
    return false;
}
