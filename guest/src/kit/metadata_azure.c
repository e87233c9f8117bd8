/* Azure: the instance metadata service, the CD that a new machine is given (ovf-env.xml), and the report that it is
 * ready, without which Azure gives a machine made from a general image up after some time. */
#define _GNU_SOURCE
#include "metadata.h"

#include <stdio.h>
#include <string.h>

#define IMDS "169.254.169.254"
#define WIRE "168.63.129.16"
#define OVF_MAX (1u << 20)

static bool instance(struct answer *answer, struct json_document *document)
{
    return ask_json(answer, document, &(struct question){.host = IMDS, .headers = "Metadata: true\r\n",
                                                         .path = "/metadata/instance?api-version=2021-02-01"});
}

bool azure_probe(const struct provider *provider)
{
    (void)provider;
    scoped_answer answer;
    scoped_json document;
    return instance(&answer, &document) && json_find(&document, &document.values[0], "compute/vmId");
}

/* What stands between <PREFIX:NAME ...> and the next tag, with &amp; and the like as it is, or NULL. */
static char *xml_text(const char *xml, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = xml; (at = strchr(at, '<'));) {
        at++;
        size_t tag = strcspn(at, " \t\r\n/>");
        const char *colon = memchr(at, ':', tag), *local = colon ? colon + 1 : at;
        if (tag - (size_t)(local - at) != length || strncmp(local, name, length))
            continue;
        const char *start = strchr(at, '>');
        if (!start || start[-1] == '/')
            return NULL;
        return format("%.*s", (int)strcspn(start + 1, "<"), start + 1);
    }
    return NULL;
}

/* The only entities that a key, a name or base64 can have. */
static void xml_unescape(char *text)
{
    static const char *const names[][2] = {
        {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&apos;", "'"}};
    char *to = text;
    while (*text) {
        size_t i = 0;
        while (i < COUNT(names) && !starts_with(text, names[i][0]))
            i++;
        *to++ = i < COUNT(names) ? *names[i][1] : *text;
        text += i < COUNT(names) ? strlen(names[i][0]) : 1;
    }
    *to = 0;
}

/* ovf-env.xml of whichever CD has one, to be freed. */
static char *ovf_read(void)
{
    size_t count;
    char *text = NULL;
    scoped_free char *folder = host_path("/sys/class/block");
    char **names = list_names(folder, &count);
    for (size_t i = 0; i < count && !text; i++) {
        if (!starts_with(names[i], "sr"))
            continue;
        scoped_free char *name = format("/dev/%s", names[i]);
        scoped_free char *device = host_path(name);
        scoped_free char *mounted = disk_mount(device, "udf");
        if (!mounted)
            mounted = disk_mount(device, "iso9660");
        if (!mounted)
            continue;
        scoped_free char *file = format("%s/ovf-env.xml", mounted);
        text = read_file(file, OVF_MAX, NULL);
        disk_unmount(mounted);
    }
    if (names)
        free_names(names, count);
    if (!text) { /* where tests, and images that copied it, have it */
        scoped_free char *file = host_path("/var/lib/waagent/ovf-env.xml");
        text = read_file(file, OVF_MAX, NULL);
    }
    return text;
}

/* User data is base64, as the place keeps it. */
static bool store_encoded(const char *text, size_t length)
{
    size_t decoded;
    scoped_free char *bytes = base64_decode(text, length, &decoded);
    if (!bytes)
        note("Azure: the user data is not base64");
    return bytes && (decoded == 0 || store_userdata(bytes, decoded));
}

static bool report_ready(void)
{
#define WIRE_HEADERS "x-ms-agent-name: linuxkit\r\nx-ms-version: 2012-11-30\r\n"
    static const char headers[] = WIRE_HEADERS, send[] = WIRE_HEADERS "Content-Type: text/xml;charset=utf-8\r\n";
    scoped_answer goal;
    if (!ask(&goal, &(struct question){.host = WIRE, .path = "/machine/?comp=goalstate", .headers = headers}))
        return false;
    scoped_free char *incarnation = xml_text(goal.body, "Incarnation");
    scoped_free char *container = xml_text(goal.body, "ContainerId");
    scoped_free char *role = xml_text(goal.body, "InstanceId");
    if (!incarnation || !container || !role)
        return false;
    scoped_free char *body = format(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<Health><GoalStateIncarnation>%s</GoalStateIncarnation><Container>"
        "<ContainerId>%s</ContainerId><RoleInstanceList><Role><InstanceId>%s</InstanceId><Health><State>Ready</State>"
        "</Health></Role></RoleInstanceList></Container></Health>",
        incarnation, container, role);
    scoped_answer answer;
    return ask(&answer, &(struct question){.method = "POST", .host = WIRE, .path = "/machine?comp=health",
                                           .headers = send, .body = body});
}

static void add_key(char **keys, const char *key)
{
    char *longer = format("%s%.*s\n", *keys, (int)strcspn(key, "\r\n"), key);
    free(*keys);
    *keys = longer;
}

bool azure_extract(const struct provider *provider)
{
    static const struct item items[] = {{"compute/osProfile/computerName", "hostname"},
                                        {"network/interface/0/ipv4/ipAddress/0/publicIpAddress", "public_ipv4"},
                                        {"network/interface/0/ipv4/ipAddress/0/privateIpAddress", "local_ipv4"},
                                        {"compute/location", "region"}, {"compute/zone", "availability_zone"},
                                        {"compute/vmSize", "instance_type"}, {"compute/vmId", "instance_id"}};
    scoped_answer answer;
    scoped_json document;
    if (!instance(&answer, &document)) {
        note("%s: no metadata: %s", provider->shown, answer.reason);
        return false;
    }
    const struct json *all = &document.values[0];
    bool complete = true;
    for (size_t i = 0; i < COUNT(items); i++) {
        const char *value = json_text(&document, all, items[i].path);
        if (i == 0 && (!value || !*value))
            value = json_text(&document, all, "compute/name");
        if (value && *value)
            complete &= store_text(items[i].file, value);
    }
    scoped_free char *keys = must_dup("");
    JSON_EACH(key, &document, json_find(&document, all, "compute/publicKeys")) {
        const char *text = json_text(&document, key, "keyData");
        if (text)
            add_key(&keys, text);
    }
    scoped_free char *ovf = ovf_read();
    if (ovf && !*keys) {
        scoped_free char *list = xml_text(ovf, "Value");
        if (list && *list) {
            xml_unescape(list);
            add_key(&keys, list);
        }
    }
    if (*keys)
        complete &= store_keys(keys, strlen(keys));
    scoped_answer data;
    bool given = ask(&data, &(struct question){.host = IMDS, .headers = "Metadata: true\r\n", .limit = USERDATA_MAX,
        .path = "/metadata/instance/compute/userData?api-version=2021-01-01&format=text"});
    scoped_free char *custom = ovf ? xml_text(ovf, "CustomData") : NULL;
    if (given && data.length)
        complete &= store_encoded(data.body, data.length);
    else if (custom && *custom)
        complete &= store_encoded(custom, strlen(custom));
    else if (!given && data.status != 404) {
        note("%s: no user data: %s", provider->shown, data.reason);
        complete = false;
    }
    if (!report_ready())
        detail("%s: not reported as ready", provider->shown);
    return complete;
}
