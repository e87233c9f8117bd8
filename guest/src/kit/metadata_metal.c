/* Equinix Metal: the machine's network is in its metadata. What has to be done is written down first, one command a
 * line (metal_plan), then carried out (metadata_net.c):
 *
 *     down LINK                      without addresses, so that it can be renamed and bonded
 *     name LINK NEW
 *     bond LINK MODE                 made, or changed
 *     up LINK
 *     enslave LINK BOND
 *     address LINK ADDRESS/BITS
 *     route LINK NETWORK/BITS GATEWAY
 */
#define _GNU_SOURCE
#include "metadata.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define SERVICE "metadata.platformequinix.com"
#define LINKS_MAX 64
#define BOND "bond0"

static void add(char **plan, char *line)
{
    char *longer = format("%s%s\n", *plan, line);
    free(line);
    free(*plan);
    *plan = longer;
}

static bool name_ok(const char *name)
{
    size_t length = name ? strlen(name) : 0;
    return length > 0 && length < 16 && strcmp(name, ".") && strcmp(name, "..") &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == length;
}

struct link {
    const char *mac, *wanted; /* wanted: the name in the metadata, or NULL for a link that it doesn't speak of */
    char now[16];
};

static size_t read_links(char *text, struct link *links)
{
    size_t count = 0;
    for (char *line; count < LINKS_MAX && (line = next_line(&text));) {
        char *blank = strchr(line, ' ');
        if (!blank)
            continue;
        *blank = 0;
        links[count] = (struct link){.mac = blank + 1};
        snprintf(links[count++].now, sizeof(links->now), "%s", line);
    }
    return count;
}

/* Names may be exchanged between links, so whoever is in the way gets a name that nobody wants first. */
static void plan_names(char **plan, struct link *links, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; links[i].wanted && j < count; j++)
            if (j != i && !strcmp(links[j].now, links[i].wanted)) {
                char away[16];
                snprintf(away, sizeof(away), "away%u", (unsigned)j % 1000);
                add(plan, format("name %s %s", links[j].now, away));
                memcpy(links[j].now, away, sizeof(away));
            }
    for (size_t i = 0; i < count; i++)
        if (links[i].wanted && strcmp(links[i].now, links[i].wanted)) {
            add(plan, format("name %s %s", links[i].now, links[i].wanted));
            snprintf(links[i].now, sizeof(links[i].now), "%s", links[i].wanted);
        }
}

static bool is_true(const struct json *value)
{
    return value && value->kind == JSON_TRUE;
}

/* The address, and the route that it is for: everything when it is public, its class when it is a private IPv4 one. */
static bool plan_address(char **plan, const struct json_document *document, const struct json *address)
{
    const char *text = json_text(document, address, "address"), *gateway = json_text(document, address, "gateway");
    const char *bits_text = json_text(document, address, "cidr");
    bool public = is_true(json_find(document, address, "public"));
    unsigned char bytes[16], other[16];
    int family = text && strchr(text, ':') ? AF_INET6 : AF_INET;
    long bits = bits_text && strspn(bits_text, "0123456789") == strlen(bits_text) ? strtol(bits_text, NULL, 10) : -1;
    if (!text || inet_pton(family, text, bytes) != 1 || bits < 1 || bits > (family == AF_INET ? 32 : 128) ||
        (gateway && inet_pton(family, gateway, other) != 1))
        return false;
    add(plan, format("address " BOND " %s/%ld", text, bits));
    if (!gateway || (family == AF_INET6 && !public))
        return true;
    if (public)
        add(plan, format("route " BOND " %s %s", family == AF_INET ? "0.0.0.0/0" : "::/0", gateway));
    else if (bytes[0] < 128)
        add(plan, format("route " BOND " %u.0.0.0/8 %s", bytes[0], gateway));
    else if (bytes[0] < 192)
        add(plan, format("route " BOND " %u.%u.0.0/16 %s", bytes[0], bytes[1], gateway));
    else
        add(plan, format("route " BOND " %u.%u.%u.0/24 %s", bytes[0], bytes[1], bytes[2], gateway));
    return true;
}

static bool read_interfaces(const struct json_document *document, const struct json *interfaces, struct link *links,
                            size_t count, char reason[static 160])
{
    JSON_EACH(interface, document, interfaces) {
        const char *name = json_text(document, interface, "name"), *mac = json_text(document, interface, "mac");
        size_t i = 0;
        if (!name_ok(name) || !mac || !strcmp(name, BOND)) {
            snprintf(reason, 160, "an interface has no usable name and mac");
            return false;
        }
        while (i < count && strcasecmp(links[i].mac, mac))
            i++;
        if (i == count) {
            snprintf(reason, 160, "this machine has no interface %.40s", mac);
            return false;
        }
        for (size_t j = 0; j < count; j++)
            if (j == i ? links[j].wanted != NULL : links[j].wanted && !strcmp(links[j].wanted, name)) {
                snprintf(reason, 160, "interface %s is there twice", name);
                return false;
            }
        links[i].wanted = name;
    }
    return true;
}

char *metal_plan(const struct json_document *document, const char *links_text, char reason[static 160])
{
    const struct json *all = &document->values[0];
    const struct json *interfaces = json_find(document, all, "network/interfaces");
    const char *mode = json_text(document, all, "network/bonding/mode");
    struct link links[LINKS_MAX];
    scoped_free char *copy = must_dup(links_text);
    size_t count = read_links(copy, links);
    if (!interfaces || interfaces->kind != JSON_ARRAY || !interfaces->first || !mode || strlen(mode) != 1 ||
        *mode < '0' || *mode > '6') {
        snprintf(reason, 160, "network without interfaces or without a bonding mode from 0 to 6");
        return NULL;
    }
    if (!read_interfaces(document, interfaces, links, count, reason))
        return NULL;
    char *plan = must_dup("");
    for (size_t i = 0; i < count; i++)
        if (links[i].wanted)
            add(&plan, format("down %s", links[i].now));
    plan_names(&plan, links, count);
    add(&plan, format("bond " BOND " %s", mode));
    JSON_EACH(interface, document, interfaces)
        add(&plan, format("enslave %s " BOND, json_text(document, interface, "name")));
    add(&plan, must_dup("up " BOND));
    JSON_EACH(address, document, json_find(document, all, "network/addresses"))
        if (!plan_address(&plan, document, address)) {
            snprintf(reason, 160, "an address, its cidr or its gateway is none");
            free(plan);
            return NULL;
        }
    return plan;
}

char *links_list(void)
{
    size_t count;
    char *list = must_dup("");
    scoped_free char *folder = host_path("/sys/class/net");
    char **names = list_names(folder, &count);
    for (size_t i = 0; i < count; i++) {
        scoped_free char *file = format("%s/%s/address", folder, names[i]);
        scoped_free char *mac = read_line(file);
        if (mac && strlen(names[i]) < 16)
            add(&list, format("%s %s", names[i], mac));
    }
    if (names)
        free_names(names, count);
    return list;
}

static bool metal_get(struct answer *answer, struct json_document *document)
{
    return ask_json(answer, document, &(struct question){.host = SERVICE, .path = "/metadata"});
}

bool metal_probe(const struct provider *provider)
{
    (void)provider;
    scoped_answer answer;
    scoped_json document;
    return metal_get(&answer, &document) && json_text(&document, &document.values[0], "hostname");
}

static bool network(const struct provider *provider, const struct json_document *document)
{
    char reason[160];
    scoped_free char *links = links_list();
    scoped_free char *plan = metal_plan(document, links, reason);
    if (!plan) {
        note("%s: %s", provider->shown, reason);
        return false;
    }
    if (metadata_options.dry) {
        fputs(plan, stdout);
        return fflush(stdout) == 0;
    }
    return plan_apply(plan);
}

/* User data before the network, which is gone for a moment then. A script for iPXE has been used up by the boot. */
static bool userdata(const struct provider *provider)
{
    scoped_answer answer;
    if (!ask(&answer, &(struct question){.host = SERVICE, .path = "/userdata", .limit = USERDATA_MAX})) {
        if (answer.status == 404)
            return true;
        note("%s: no user data: %s", provider->shown, answer.reason);
        return false;
    }
    if (!answer.length || starts_with(answer.body, "#!ipxe"))
        return true;
    return store_userdata(answer.body, answer.length);
}

bool metal_extract(const struct provider *provider)
{
    scoped_answer answer;
    scoped_json document;
    if (!metal_get(&answer, &document)) {
        note("%s: no metadata: %s", provider->shown, answer.reason);
        return false;
    }
    const struct json *all = &document.values[0];
    scoped_free char *keys = must_dup("");
    JSON_EACH(key, &document, json_find(&document, all, "ssh_keys"))
        if (key->kind == JSON_STRING) {
            char *longer = format("%s%s\n", keys, key->text);
            free(keys);
            keys = longer;
        }
    bool complete = store_text("hostname", json_text(&document, all, "hostname"));
    complete &= store_keys(keys, strlen(keys));
    complete &= userdata(provider);
    return network(provider, &document) && complete;
}
