/* NoCloud's seeds: `ds=nocloud;s=URL;h=HOSTNAME;i=INSTANCE` on the kernel's command line or as the machine's serial
 * number; and its meta-data, of which a few keys are understood, as YAML or JSON. */
#define _GNU_SOURCE
#include "metadata.h"

#include <stdio.h>
#include <string.h>

/* -- meta-data */

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

/* -- seeds */

struct seed {
    char *source, *hostname, *instance;
};

static void seed_free(struct seed *seed)
{
    free(seed->source), free(seed->hostname), free(seed->instance);
}
#define scoped_seed __attribute__((cleanup(seed_free))) struct seed

static bool seed_parse(struct seed *seed, const char *text)
{
    *seed = (struct seed){0};
    size_t name = strcspn(text, ";");
    if (strncmp(text, "nocloud", 7) || (name != 7 && (name != 11 || strncmp(text, "nocloud-net", 11))))
        return false;
    for (const char *at = text + name; *at == ';';) {
        size_t length = strcspn(++at, ";");
        scoped_free char *word = format("%.*s", (int)length, at);
        char *equals = strchr(word, '=');
        at += length;
        if (!equals)
            continue;
        *equals = 0;
        char **where = !strcmp(word, "s") || !strcmp(word, "seedfrom")         ? &seed->source
                       : !strcmp(word, "h") || !strcmp(word, "local-hostname") ? &seed->hostname
                       : !strcmp(word, "i") || !strcmp(word, "instance-id")    ? &seed->instance
                                                                              : NULL;
        if (where) {
            free(*where);
            *where = must_dup(equals + 1);
        }
    }
    return seed->source || seed->hostname || seed->instance;
}

static bool seed_find(struct seed *seed)
{
    scoped_free char *cmdline_path = host_path("/proc/cmdline");
    scoped_free char *serial_path = host_path("/sys/class/dmi/id/product_serial");
    scoped_free char *cmdline = read_line(cmdline_path);
    scoped_free char *word = cmdline ? cmdline_value(cmdline, "ds") : NULL;
    scoped_free char *serial = read_line(serial_path);
    *seed = (struct seed){0};
    if (word && seed_parse(seed, word))
        return true;
    seed_free(seed);
    *seed = (struct seed){0};
    return serial && starts_with(serial, "ds=") && seed_parse(seed, serial + 3);
}

bool nocloud_probe(const struct provider *provider)
{
    scoped_seed seed;
    (void)provider;
    return seed_find(&seed);
}

/* Files of a seed on the network; user-data and meta-data have to be there, the others need not. */
static bool seed_fetch(const struct provider *provider, const char *url)
{
    static const char *const files[][2] = {
        {"meta-data", "metadata"}, {"network-config", "network_config"}, {"vendor-data", "vendordata"}};
    scoped_free char *host = NULL, *folder = NULL;
    unsigned port;
    bool complete = true;
    if (!url_split(url, &host, &port, &folder)) {
        note("%s: the seed %s is neither a folder nor http://", provider->shown, url);
        return false;
    }
    for (size_t i = 0; i < COUNT(files); i++) {
        scoped_free char *path = format("%s%s", folder, files[i][0]);
        scoped_answer answer;
        bool came = ask(&answer, &(struct question){.host = host, .port = port, .path = path});
        if (came && i == 0)
            store_cloud_metadata(answer.body, answer.length);
        else if (came && answer.length)
            complete &= store(files[i][1], answer.body, answer.length, 0644);
        else if (!came && (i == 0 || answer.status != 404)) {
            note("%s: no %s: %s", provider->shown, files[i][0], answer.reason);
            complete &= i != 0;
        }
    }
    scoped_free char *path = format("%suser-data", folder);
    return fetch_userdata(provider, &(struct question){.host = host, .port = port, .path = path}) && complete;
}

bool nocloud_extract(const struct provider *provider)
{
    scoped_seed seed;
    bool complete = seed_find(&seed), found = true;
    if (seed.source) {
        const char *folder = starts_with(seed.source, "file://") ? seed.source + strlen("file://") : seed.source;
        if (*folder == '/') {
            scoped_free char *path = host_path(folder);
            complete &= folder_extract(path, &found);
            if (!found)
                note("%s: neither user-data nor meta-data in %s", provider->shown, folder);
        } else {
            complete &= seed_fetch(provider, seed.source);
        }
    }
    store_value("hostname", seed.hostname);
    store_value("instance_id", seed.instance);
    return complete && found;
}
