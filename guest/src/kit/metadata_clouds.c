/* Services that have a path for each value. The files' names are LinuxKit's. */
#include "metadata.h"

#include <stdio.h>
#include <string.h>

#define LINK_LOCAL "169.254.169.254"

bool fetch_userdata(const struct provider *provider, const struct question *question)
{
    struct question whole = *question;
    whole.limit = USERDATA_MAX;
    scoped_answer answer;
    if (ask(&answer, &whole))
        return answer.length == 0 || store_userdata(answer.body, answer.length);
    if (answer.status == 404)
        return true;
    note("%s: no user data: %s", provider->shown, answer.reason);
    return false;
}

/* NULL: a token was asked for, and nobody answered at all. */
static char *header_lines(const struct provider *provider)
{
    const struct service *service = provider->service;
    const char *token = service->token ? service->token(provider) : "";
    return token ? format("%s%s", service->headers ? service->headers : "", token) : NULL;
}

bool service_probe(const struct provider *provider)
{
    const struct service *service = provider->service;
    scoped_free char *headers = header_lines(provider);
    scoped_answer answer = {0};
    if (!headers ||
        !ask(&answer, &(struct question){.host = service->host, .path = service->probe, .headers = headers}))
        return false;
    scoped_free char *shown = service->probe_header ? answer_header(&answer, service->probe_header) : NULL;
    return !service->probe_header || shown;
}

/* hostname is asked for as the first of the items; a service without one is broken. */
static bool values_extract(const struct provider *provider, const char *headers)
{
    const struct service *service = provider->service;
    bool complete = true;
    for (size_t i = 0; i < COUNT(service->items) && service->items[i].path; i++) {
        const struct item *item = &service->items[i];
        scoped_free char *path = format("%s%s", service->values, item->path);
        scoped_answer answer;
        if (ask(&answer, &(struct question){.host = service->host, .path = path, .headers = headers}))
            complete &= store(item->file, answer.body, answer.length, 0644);
        else if (i == 0) {
            note("%s: no %s: %s", provider->shown, item->file, answer.reason);
            complete = false;
        }
    }
    return complete;
}

bool service_extract(const struct provider *provider)
{
    const struct service *service = provider->service;
    scoped_free char *headers = header_lines(provider);
    bool complete = values_extract(provider, headers);
    if (service->keys) {
        scoped_answer answer;
        if (ask(&answer, &(struct question){.host = service->host, .path = service->keys, .headers = headers}))
            complete &= service->key_form ? service->key_form(&answer) : store_keys(answer.body, answer.length);
        else
            detail("%s: no ssh keys: %s", provider->shown, answer.reason);
    }
    if (service->userdata)
        complete &= fetch_userdata(
            provider, &(struct question){.host = service->host, .path = service->userdata, .headers = headers});
    return complete;
}

/* IMDSv2: a token for some minutes, which version 1 neither has nor needs. Asked for once in each process; where nobody
 * says anything to it, a second question would only take the time again. */
static const char *aws_token(const struct provider *provider)
{
    static char *header;
    if (header)
        return header;
    scoped_answer answer;
    bool given = ask(&answer, &(struct question){.method = "PUT", .host = provider->service->host,
                                                 .path = "/latest/api/token", .body = "", .limit = 4096,
                                                 .headers = "X-aws-ec2-metadata-token-ttl-seconds: 300\r\n"});
    if (!answer.status)
        return NULL;
    bool plain = given && answer.length;
    for (size_t i = 0; plain && i < answer.length; i++)
        plain = answer.body[i] > ' ' && answer.body[i] < 127;
    header = plain ? format("X-aws-ec2-metadata-token: %s\r\n", answer.body) : must_dup("");
    return header;
}

const struct service aws = {
    .host = LINK_LOCAL, .probe = "/latest/meta-data/", .values = "/latest/meta-data/", .token = aws_token,
    .keys = "/latest/meta-data/public-keys/0/openssh-key", .userdata = "/latest/user-data",
    .items = {{"hostname", "hostname"}, {"public-ipv4", "public_ipv4"}, {"local-ipv4", "local_ipv4"},
              {"placement/availability-zone", "availability_zone"}, {"instance-type", "instance_type"},
              {"instance-id", "instance_id"}, {"local-hostname", "local_hostname"}},
};

const struct service openstack = {
    .host = LINK_LOCAL, .probe = "/latest/meta-data/hostname", .values = "/latest/meta-data/",
    .keys = "/latest/meta-data/public-keys/0/openssh-key", .userdata = "/latest/user-data",
    .items = {{"hostname", "hostname"}, {"public-ipv4", "public_ipv4"}, {"local-ipv4", "local_ipv4"},
              {"placement/availability-zone", "availability_zone"}, {"instance-type", "instance_type"},
              {"instance-id", "instance_id"}, {"local-hostname", "local_hostname"}},
};

bool openstack_probe(const struct provider *provider)
{
    return service_probe(provider) || drive_probe();
}

bool openstack_extract(const struct provider *provider)
{
    return service_probe(provider) ? service_extract(provider) : drive_extract();
}

/* An array of keys, as JSON. */
static bool json_keys(const struct answer *answer)
{
    scoped_json document;
    if (!json_read(&document, answer->body, answer->length) || document.values[0].kind != JSON_ARRAY) {
        note("the ssh keys are no JSON array");
        return false;
    }
    scoped_free char *keys = must_dup("");
    JSON_EACH(key, &document, &document.values[0])
        if (key->kind == JSON_STRING) {
            char *longer = format("%s%s\n", keys, key->text);
            free(keys);
            keys = longer;
        }
    return store_keys(keys, strlen(keys));
}

const struct service hetzner = {
    .host = LINK_LOCAL, .probe = "/latest/meta-data/hostname", .values = "/latest/meta-data/",
    .keys = "/latest/meta-data/public-keys", .key_form = json_keys, .userdata = "/latest/user-data",
    .items = {{"hostname", "hostname"}, {"public-ipv4", "public_ipv4"}, {"local-ipv4", "local_ipv4"},
              {"instance-id", "instance_id"}},
};

const struct service digitalocean = {
    .host = LINK_LOCAL, .probe = "/metadata/v1/", .values = "/metadata/v1/", .keys = "/metadata/v1/public-keys",
    .userdata = "/metadata/v1/user-data",
    .items = {{"hostname", "hostname"}, {"interfaces/public/0/ipv4/address", "public_ipv4"},
              {"interfaces/private/0/ipv4/address", "private_ipv4"}, {"region", "region"}, {"id", "id"}},
};

const struct service vultr = {
    .host = LINK_LOCAL, .headers = "Metadata-Token: vultr\r\n", .probe = "/v1/", .values = "/v1/",
    .keys = "/v1/public-keys", .userdata = "/latest/user-data",
    .items = {{"hostname", "hostname"}, {"interfaces/0/ipv4/address", "public_ipv4"},
              {"interfaces/1/ipv4/address", "private_ipv4"}, {"interfaces/1/ipv4/netmask", "private_netmask"},
              {"region/regioncode", "region_code"}, {"instanceid", "instance_id"}},
};

const struct service metaldata = {
    .host = "metaldata", .probe = "/get/meta/hostname", .values = "/get/meta/", .keys = "/get/meta/authorized-keys",
    .userdata = "/get/user",
    .items = {{"hostname", "hostname"}, {"public-ipv4", "public_ipv4"}, {"private-ipv4", "private_ipv4"},
              {"failure-domain", "failure_domain"}, {"machine-id", "machine_id"}, {"machine-type", "machine_type"}},
};

/* -- GCP: the name is asked for in the header, at the address that it always has, so that no DNS is needed */

#define GCP_HEADERS "Metadata-Flavor: Google\r\n"
#define GCP "/computeMetadata/v1/"

const struct service gcp = {
    .host = LINK_LOCAL, .headers = GCP_HEADERS, .probe = GCP "instance/hostname", .probe_header = "Metadata-Flavor",
    .values = GCP, .items = {{"instance/hostname", "hostname"}},
};

static bool gcp_get(struct answer *answer, const char *path)
{
    scoped_free char *whole = format(GCP "%s", path);
    return ask(answer, &(struct question){.host = LINK_LOCAL, .path = whole, .headers = GCP_HEADERS});
}

/* USER:KEY a line; the users make no difference here. */
static void add_gcp_keys(char **keys, const char *path)
{
    scoped_answer answer;
    if (!gcp_get(&answer, path))
        return;
    char *rest = answer.body;
    for (char *line; (line = next_line(&rest));) {
        line[strcspn(line, "\r")] = 0;
        const char *colon = strchr(line, ':');
        if (!colon)
            continue;
        char *longer = format("%s%s\n", *keys, colon + 1);
        free(*keys);
        *keys = longer;
    }
}

bool gcp_extract(const struct provider *provider)
{
    bool complete = values_extract(provider, GCP_HEADERS);
    scoped_free char *keys = must_dup("");
    scoped_answer blocked;
    bool asked = gcp_get(&blocked, "instance/attributes/block-project-ssh-keys");
    if (!asked || (strcmp(blocked.body, "TRUE") && strcmp(blocked.body, "true")))
        add_gcp_keys(&keys, "project/attributes/ssh-keys");
    add_gcp_keys(&keys, "instance/attributes/ssh-keys");
    if (*keys)
        complete &= store_keys(keys, strlen(keys));
    return fetch_userdata(provider, &(struct question){.host = LINK_LOCAL, .headers = GCP_HEADERS,
                                                                   .path = GCP "instance/attributes/user-data"}) &&
           complete;
}

/* -- Scaleway: one text of KEY=VALUE lines; user data only for who asks from a port below 1024 */

#define SCALEWAY "169.254.42.42"

static char *conf_value(const char *conf, const char *key)
{
    size_t length = strlen(key);
    for (const char *at = conf; at; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, key, length) == 0 && at[length] == '=') {
            const char *value = at + length + 1;
            size_t size = strcspn(value, "\r\n");
            if (size >= 2 && *value == '\'' && value[size - 1] == '\'') {
                value++;
                size -= 2;
            }
            return format("%.*s", (int)size, value);
        }
        if (!strchr(at, '\n'))
            break;
    }
    return NULL;
}

static bool scaleway_conf(struct answer *answer)
{
    return ask(answer, &(struct question){.host = SCALEWAY, .path = "/conf"});
}

bool scaleway_probe(const struct provider *provider)
{
    (void)provider;
    scoped_answer answer;
    return scaleway_conf(&answer);
}

bool scaleway_extract(const struct provider *provider)
{
    static const struct item items[] = {{"HOSTNAME", "hostname"}, {"ID", "instance_id"},
                                        {"LOCATION_ZONE_ID", "instance_location"},
                                        {"PUBLIC_IP_ADDRESS", "public_ip"}, {"PRIVATE_IP", "private_ip"}};
    scoped_answer answer;
    if (!scaleway_conf(&answer)) {
        note("%s: no conf: %s", provider->shown, answer.reason);
        return false;
    }
    bool complete = true;
    for (size_t i = 0; i < COUNT(items); i++) {
        scoped_free char *value = conf_value(answer.body, items[i].path);
        if (value)
            complete &= store_text(items[i].file, value);
        else
            detail("%s: no %s", provider->shown, items[i].path);
    }
    scoped_free char *count = conf_value(answer.body, "SSH_PUBLIC_KEYS");
    scoped_free char *keys = must_dup("");
    long number = count ? strtol(count, NULL, 10) : 0;
    for (long i = 0; i < number && i < 1000; i++) {
        scoped_free char *name = format("SSH_PUBLIC_KEYS_%ld_KEY", i);
        scoped_free char *key = conf_value(answer.body, name);
        if (!key)
            break;
        char *longer = format("%s%s\n", keys, key);
        free(keys);
        keys = longer;
    }
    if (*keys)
        complete &= store_keys(keys, strlen(keys));
    return fetch_userdata(provider, &(struct question){.host = SCALEWAY, .low_port = true,
                                                                   .path = "/user_data/cloud-init"}) &&
           complete;
}
