/* Meta-data as NoCloud, guestinfo and a config drive have it, of which a few keys are understood, as YAML or JSON. */
#include "metadata.h"

#include <stdio.h>
#include <string.h>

static void store_value(const char *file, const char *value)
{
    if (value && *value)
        store_text(file, value);
}

static void json_metadata(const struct json_document *document)
{
    const struct json *all = &document->values[0];
    const char *name = json_text(document, all, "local-hostname");
    store_value("hostname", name ? name : json_text(document, all, "hostname"));
    const char *instance = json_text(document, all, "instance-id");
    store_value("instance_id", instance ? instance : json_text(document, all, "uuid"));
    store_value("availability_zone", json_text(document, all, "availability_zone"));
    const struct json *list = NULL;
    static const char *const names[] = {"public-keys", "public_ssh_keys", "public_keys"};
    for (size_t i = 0; !list && i < COUNT(names); i++)
        list = json_find(document, all, names[i]);
    scoped_free char *keys = must_dup("");
    if (list && list->kind == JSON_STRING) {
        free(keys);
        keys = format("%s\n", list->text);
    }
    JSON_EACH(item, document, list)
        if (item->kind == JSON_STRING) {
            size_t size = item->length; /* some end with a newline, some don't */
            while (size && (item->text[size - 1] == '\n' || item->text[size - 1] == '\r'))
                size--;
            char *longer = format("%s%.*s\n", keys, (int)size, item->text);
            free(keys);
            keys = longer;
        }
    if (*keys)
        store_keys(keys, strlen(keys));
}

/* A plain or quoted scalar, without the comment after it; changes the text. */
static char *scalar(char *text)
{
    text += strspn(text, " \t");
    if (*text == '"' || *text == '\'') {
        char *end = strchr(text + 1, *text);
        if (end) {
            *end = 0;
            return text + 1;
        }
    }
    char *comment = strstr(text, " #");
    if (comment)
        *comment = 0;
    size_t length = strlen(text);
    while (length && strchr(" \t\r", text[length - 1]))
        text[--length] = 0;
    return text;
}

/* YAML as these files are written: KEY: VALUE at the start of a line, and a list or map of keys below public-keys. */
static void yaml_metadata(char *text)
{
    scoped_free char *keys = must_dup("");
    bool named = false, in_keys = false;
    for (char *line; (line = next_line(&text));) {
        char *colon = strchr(line, ':');
        if (*line == '#' || *line == '\r' || !*line)
            continue;
        char *start = line + strspn(line, " \t"), *key = NULL;
        if (line[0] != ' ' && line[0] != '\t' && line[0] != '-') {
            in_keys = false;
            if (!colon)
                continue;
            *colon = 0;
            char *value = scalar(colon + 1);
            if (!strcmp(line, "local-hostname") || (!strcmp(line, "hostname") && !named)) {
                store_value("hostname", value);
                named = true;
            } else if (!strcmp(line, "instance-id")) {
                store_value("instance_id", value);
            } else if (!strcmp(line, "public-keys") || !strcmp(line, "public_ssh_keys")) {
                in_keys = true;
                key = value;
            }
        } else if (in_keys) {
            key = starts_with(start, "- ") ? start + 2 : colon && !strstr(start, "ssh-") ? colon + 1 : start;
            if (colon && starts_with(colon, ": ") && key == start)
                key = colon + 1;
            key = scalar(key);
        }
        if (!key || !strchr(key, ' '))
            continue; /* a key is a type and a number */
        char *longer = format("%s%s\n", keys, key);
        free(keys);
        keys = longer;
    }
    if (*keys)
        store_keys(keys, strlen(keys));
}

void store_cloud_metadata(const char *text, size_t length)
{
    store("metadata", text, length, 0644);
    scoped_json document;
    if (json_read(&document, text, length) && document.values[0].kind == JSON_OBJECT) {
        json_metadata(&document);
        return;
    }
    scoped_free char *copy = must_alloc(length + 1);
    if (length)
        memcpy(copy, text, length);
    yaml_metadata(copy);
}
