/* NoCloud's seeds: `ds=nocloud;s=URL;h=HOSTNAME;i=INSTANCE` on the kernel's command line or as the machine's serial
 * number. */
#define _GNU_SOURCE
#include "metadata.h"

#include <stdio.h>
#include <string.h>

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
    if (!ends_with(folder, "/") && !strchr(folder, '?')) { /* the files' names are put behind it */
        char *longer = format("%s/", folder);
        free(folder);
        folder = longer;
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
    if (seed.hostname && *seed.hostname)
        store_text("hostname", seed.hostname);
    if (seed.instance && *seed.instance)
        store_text("instance_id", seed.instance);
    return complete && found;
}
