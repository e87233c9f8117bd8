/* JSON (RFC 8259): strings written; documents read into a flat vector of values by one pass, bounded in depth and in the
 * number of values. What is not JSON to the letter is refused whole. */
#include "json.h"
#include "util.h"

#include <stdio.h>
#include <string.h>

#define DEPTH_MAX 64
#define COUNT_MAX 100000 /* values; more than that is no configuration */

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

/* -- reading */

struct reader {
    struct json_document *document;
    char *at, *end;
    const char *error;
};

static bool bad(struct reader *reader, const char *why)
{
    if (!reader->error)
        reader->error = why;
    return false;
}

static void skip_blanks(struct reader *reader)
{
    while (reader->at < reader->end && strchr(" \t\n\r", *reader->at) && *reader->at)
        reader->at++;
}

static char peek(const struct reader *reader)
{
    return reader->at < reader->end ? *reader->at : 0;
}

static bool hex4(struct reader *reader, unsigned *code)
{
    *code = 0;
    if (reader->end - reader->at < 4)
        return bad(reader, "a string ends in an escape");
    for (int i = 0; i < 4; i++) {
        char c = *reader->at++;
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : 16;
        if (digit == 16)
            return bad(reader, "\\u wants four hexadecimal digits");
        *code = *code << 4 | digit;
    }
    return true;
}

static char *put_utf8(char *to, unsigned code)
{
    if (code < 0x80) {
        *to++ = (char)code;
        return to;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *to++ = (char)((0xFF00 >> (more + 1) & 0xFF) | code >> 6 * more);
    while (more--)
        *to++ = (char)(0x80 | (code >> 6 * more & 0x3F));
    return to;
}

/* After \u; half a pair becomes U+FFFD. Never longer than what it was written as. */
static bool read_unicode(struct reader *reader, char **to)
{
    unsigned code, low;
    if (!hex4(reader, &code))
        return false;
    if (code >= 0xD800 && code < 0xDC00 && reader->end - reader->at >= 6 && reader->at[0] == '\\' &&
        reader->at[1] == 'u') {
        char *second = reader->at;
        reader->at += 2;
        if (!hex4(reader, &low))
            return false;
        if (low >= 0xDC00 && low < 0xE000)
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        else
            reader->at = second;
    }
    if (code >= 0xD800 && code < 0xE000)
        code = 0xFFFD;
    *to = put_utf8(*to, code);
    return true;
}

/* Decoded in place: the text is never longer than it was, and its closing quote leaves room for the NUL. */
static bool read_string(struct reader *reader, const char **text, size_t *length)
{
    static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (peek(reader) != '"')
        return bad(reader, "a string is missing");
    char *start = ++reader->at, *to = start;
    for (;;) {
        if (reader->at == reader->end)
            return bad(reader, "a string has no end");
        unsigned char c = (unsigned char)*reader->at++;
        if (c == '"')
            break;
        if (c < 0x20)
            return bad(reader, "a control character in a string");
        if (c != '\\') {
            *to++ = (char)c;
            continue;
        }
        c = (unsigned char)peek(reader);
        const char *found = c ? strchr(escapes, c) : NULL;
        if (found) {
            *to++ = meant[found - escapes];
            reader->at++;
        } else if (c == 'u') {
            reader->at++;
            if (!read_unicode(reader, &to))
                return false;
        } else {
            return bad(reader, "an unknown escape in a string");
        }
    }
    *to = 0;
    *text = start;
    *length = (size_t)(to - start);
    return true;
}

static bool digits(struct reader *reader)
{
    char *start = reader->at;
    while (peek(reader) >= '0' && peek(reader) <= '9')
        reader->at++;
    return reader->at > start ? true : bad(reader, "a number lacks digits");
}

static bool read_number_text(struct reader *reader, size_t where)
{
    char *start = reader->at;
    if (peek(reader) == '-')
        reader->at++;
    if (peek(reader) == '0')
        reader->at++;
    else if (!digits(reader))
        return false;
    if (peek(reader) == '.') {
        reader->at++;
        if (!digits(reader))
            return false;
    }
    if (peek(reader) == 'e' || peek(reader) == 'E') {
        reader->at++;
        if (peek(reader) == '+' || peek(reader) == '-')
            reader->at++;
        if (!digits(reader))
            return false;
    }
    struct json *value = &reader->document->values[where];
    value->kind = JSON_NUMBER;
    value->text = start; /* closed by a NUL when everything has been read */
    value->length = (size_t)(reader->at - start);
    return true;
}

static bool read_word(struct reader *reader, size_t where)
{
    static const char *const words[] = {[JSON_NULL] = "null", [JSON_FALSE] = "false", [JSON_TRUE] = "true"};
    for (size_t i = 0; i < COUNT(words); i++) {
        size_t length = strlen(words[i]);
        if ((size_t)(reader->end - reader->at) >= length && memcmp(reader->at, words[i], length) == 0) {
            reader->document->values[where].kind = (enum json_kind)i;
            reader->at += length;
            return true;
        }
    }
    return bad(reader, "not a value");
}

static bool read_value(struct reader *reader, size_t where, unsigned depth);

static bool read_members(struct reader *reader, size_t where, bool object, unsigned depth)
{
    struct json_document *document = reader->document;
    char close = object ? '}' : ']';
    size_t last = 0;
    reader->at++;
    document->values[where].kind = object ? JSON_OBJECT : JSON_ARRAY;
    skip_blanks(reader);
    if (peek(reader) == close) {
        reader->at++;
        return true;
    }
    for (;;) {
        if (document->count == COUNT_MAX)
            return bad(reader, "too many values");
        size_t item = document->count;
        (void)APPEND(document->values, document->count);
        if (last)
            document->values[last].next = item;
        else
            document->values[where].first = item;
        last = item;
        skip_blanks(reader);
        if (object) {
            const char *key;
            size_t length;
            if (!read_string(reader, &key, &length))
                return false;
            document->values[item].key = key;
            document->values[item].key_length = length;
            skip_blanks(reader);
            if (peek(reader) != ':')
                return bad(reader, "a colon is missing");
            reader->at++;
        }
        if (!read_value(reader, item, depth + 1))
            return false;
        skip_blanks(reader);
        char c = peek(reader);
        reader->at++;
        if (c == close)
            return true;
        if (c != ',')
            return bad(reader, "a comma or a closing bracket is missing");
    }
}

static bool read_value(struct reader *reader, size_t where, unsigned depth)
{
    skip_blanks(reader);
    char c = peek(reader);
    if (c == '{' || c == '[')
        return depth < DEPTH_MAX ? read_members(reader, where, c == '{', depth) : bad(reader, "nested too deeply");
    if (c == '"') {
        const char *text;
        size_t length;
        if (!read_string(reader, &text, &length))
            return false;
        struct json *value = &reader->document->values[where];
        value->kind = JSON_STRING;
        value->text = text;
        value->length = length;
        return true;
    }
    return c == '-' || (c >= '0' && c <= '9') ? read_number_text(reader, where) : read_word(reader, where);
}

bool json_read(struct json_document *document, const char *text, size_t length)
{
    *document = (struct json_document){0};
    document->text = must_alloc(length + 1);
    if (length)
        memcpy(document->text, text, length);
    struct reader reader = {.document = document, .at = document->text, .end = document->text + length};
    (void)APPEND(document->values, document->count);
    bool read = read_value(&reader, 0, 0);
    if (read) {
        skip_blanks(&reader);
        if (reader.at != reader.end)
            read = bad(&reader, "something follows after the end");
    }
    document->error = reader.error;
    for (size_t i = 0; read && i < document->count; i++)
        if (document->values[i].kind == JSON_NUMBER)
            ((char *)document->values[i].text)[document->values[i].length] = 0;
    return read;
}

void json_free(struct json_document *document)
{
    free(document->values);
    free(document->text);
    *document = (struct json_document){0};
}

const struct json *json_find(const struct json_document *document, const struct json *at, const char *path)
{
    while (at && *path) {
        size_t length = strcspn(path, "/"), number = 0;
        bool numeric = strspn(path, "0123456789") == length && length < 6;
        for (size_t i = 0; numeric && i < length; i++)
            number = number * 10 + (size_t)(path[i] - '0');
        const struct json *found = NULL;
        JSON_EACH(item, document, at) {
            if (at->kind == JSON_OBJECT && item->key_length == length && memcmp(item->key, path, length) == 0)
                found = item;
            if (at->kind == JSON_ARRAY && numeric && number-- == 0) {
                found = item;
                break;
            }
        }
        at = found;
        path += length + (path[length] == '/');
    }
    return at;
}

const char *json_text(const struct json_document *document, const struct json *at, const char *path)
{
    const struct json *found = json_find(document, at, path);
    return found && (found->kind == JSON_STRING || found->kind == JSON_NUMBER) ? found->text : NULL;
}
