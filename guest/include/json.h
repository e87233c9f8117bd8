/* JSON (RFC 8259): strings written, documents read; bounded in depth and in the number of values. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Writes `length` bytes of text as a string in quotes; bytes that are not UTF-8 become U+FFFD. Returns what it took:
 * at most 6 * length + 2, for which there has to be room. Nothing closes it. */
size_t json_quote(char *to, const char *text, size_t length);

enum json_kind { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_kind kind;
    const char *key, *text; /* decoded, with a final NUL; text: of strings and numbers */
    size_t key_length, length;
    size_t first, next; /* places in the document's values; 0: none */
};

struct json_document {
    struct json *values; /* values[0] is the whole */
    size_t count;
    char *text;
    const char *error;
};

bool json_read(struct json_document *document, const char *text, size_t length);
void json_free(struct json_document *document);
#define scoped_json __attribute__((cleanup(json_free))) struct json_document
/* By keys and, in arrays, numbers, separated by slashes: "network/interface/0"; from `at`. NULL: not there. */
const struct json *json_find(const struct json_document *document, const struct json *at, const char *path);
/* The text of a string or number at the path, or NULL. */
const char *json_text(const struct json_document *document, const struct json *at, const char *path);
#define JSON_EACH(item, document, array)                                                                              \
    for (const struct json *item = (array) && (array)->first ? &(document)->values[(array)->first] : NULL; item;       \
         item = item->next ? &(document)->values[item->next] : NULL)
