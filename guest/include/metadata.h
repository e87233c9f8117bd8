/* metadata: asks the place where the machine runs who it is, and puts the answers into /run/config. */
#pragma once

#include "json.h"
#include "util.h"

#define METADATA_SECONDS 2.0     /* for one question, and for each part of a long answer */
#define EXTRACT_SECONDS 30.0     /* that the chosen provider may go on without bringing anything */
#define USERDATA_MAX (64u << 20) /* bytes; what `linuxkit metadata create` takes */
#define VALUE_MAX (1u << 20)     /* bytes of any other answer */

#define CONFIG "/run/config"

struct metadata_options {
    const char *config; /* where the answers go: /run/config */
    const char *base;   /* http://ADDRESS:PORT that is asked instead of every service, or NULL */
    const char *root;   /* "" or where /proc, /sys and /dev are looked for */
    bool verbose, dry;  /* dry: a network plan is printed instead of carried out */
    bool patient;       /* whoever is asked is meant to be there: who refuses may be about to start */
    int progress;       /* a dot goes there whenever a part of a long answer has come; -1: nobody waits for it */
};
extern struct metadata_options metadata_options;

/* One line on standard error; detail() only with -v. */
void note(const char *fmt, ...) PRINTF(1, 2);
void detail(const char *fmt, ...) PRINTF(1, 2);
/* Below the root of metadata_options; the caller frees it. */
char *host_path(const char *path);

/* -- HTTP/1.1, one question per connection */

struct question {
    const char *method;  /* NULL: GET */
    const char *host;    /* an address, or a name to be looked up; for the Host header, too */
    unsigned port;       /* 0: 80 */
    const char *path;
    const char *headers; /* further ones, each with its \r\n, or NULL */
    const char *body;    /* NULL: none */
    size_t limit;        /* bytes of the answer; 0: VALUE_MAX */
    bool low_port;       /* ask from a port below 1024 */
};

struct answer {
    bool reached;  /* somebody listens there */
    bool refused;  /* the machine is there, or a network on the way, and says no */
    int status;    /* 0: no answer came, `reason` says why */
    char *headers; /* status line and headers as they came */
    char *body;    /* with a final NUL */
    size_t length;
    char reason[160];
};

/* Asks, again after a failure that may pass, until METADATA_SECONDS are over; what is being transferred by then goes on as
 * long as it comes. True: the status is 200. */
bool ask(struct answer *answer, const struct question *question);
void answer_free(struct answer *answer);
#define scoped_answer __attribute__((cleanup(answer_free))) struct answer
/* The value of a header, to be freed, or NULL. */
char *answer_header(const struct answer *answer, const char *name);
/* Asks, and reads the answer. False: `answer` has the reason. Both are to be freed in either case. */
bool ask_json(struct answer *answer, struct json_document *document, const struct question *question);
/* Splits http://HOST[:PORT]/PATH; the parts are to be freed. */
bool url_split(const char *url, char **host, unsigned *port, char **path);

/* -- what encodings bring */

/* Both return memory to be freed, with a final NUL, or NULL when the text is none. */
char *base64_decode(const char *text, size_t length, size_t *decoded);
char *gzip_decode(const char *bytes, size_t length, size_t limit, size_t *decoded);

/* -- /run/config */

bool store_open(void);
/* One file, whole or not at all; `name` may have one folder before it, which is made. */
bool store(const char *name, const void *bytes, size_t length, mode_t mode);
bool store_text(const char *name, const char *text); /* 0644; NULL: nothing to do */
bool store_keys(const char *keys, size_t length);    /* ssh/authorized_keys */
/* The raw file, and the tree when it is JSON that describes one. */
bool store_userdata(const char *bytes, size_t length);

/* -- providers */

struct provider {
    const char *name;  /* as an argument */
    const char *shown; /* in /run/config/provider */
    bool asked;        /* only when it is named */
    bool (*probe)(const struct provider *provider);
    bool (*extract)(const struct provider *provider); /* false: what was there could not be fetched */
    const struct service *service;                    /* what the two need to know, for most */
};

/* A service that has a path for each value. */
struct service {
    const char *host, *headers;
    const char *probe;        /* answers with 200 when it is this service */
    const char *probe_header; /* an answer without it is another's */
    const char *values;       /* what comes before the paths of `items` */
    const char *keys, *userdata;
    bool (*key_form)(const struct answer *answer); /* stores keys that are not one a line */
    const char *(*token)(const struct provider *provider); /* a header line to be added, or NULL: not here */
    struct item {
        const char *path, *file;
    } items[8];
};

extern const struct service aws, gcp, hetzner, openstack, vultr, digitalocean, metaldata;
extern const struct provider providers[]; /* in the order of preference; the last has no name */

bool service_probe(const struct provider *provider);
bool service_extract(const struct provider *provider);
bool gcp_extract(const struct provider *provider);
bool openstack_probe(const struct provider *provider); /* the service, or a config drive */
bool openstack_extract(const struct provider *provider);
bool scaleway_probe(const struct provider *provider);
bool scaleway_extract(const struct provider *provider);
bool azure_probe(const struct provider *provider);
bool azure_extract(const struct provider *provider);
bool vmware_probe(const struct provider *provider);
bool vmware_extract(const struct provider *provider);
bool metal_probe(const struct provider *provider);
bool metal_extract(const struct provider *provider);
bool nocloud_probe(const struct provider *provider);
bool nocloud_extract(const struct provider *provider);
/* Fetches it, if there is any: 404 is none, other failures are false. */
bool fetch_userdata(const struct provider *provider, const struct question *question);

/* -- whom to ask, and in which order */

#define WANTED_MAX 32

struct wanted {
    const struct provider *list[WANTED_MAX];
    size_t count;
    bool disks, disks_named;
    const char *files[WANTED_MAX];
    size_t file_count;
};

void want_default(struct wanted *wanted);
/* The names of all, with a blank behind each; the caller frees it. */
char *providers_list(void);
bool want(struct wanted *wanted, const char *name); /* false: there is no such provider */
/* The provider that the firmware (DMI) speaks for, or NULL. */
const char *hinted(void);

/* NoCloud's and guestinfo's metadata, YAML or JSON: hostname, instance_id and keys are stored. */
void store_cloud_metadata(const char *text, size_t length);

/* Looks on disks labelled cidata, then in CD drives. True: one had data, which is stored; `shown` is to be freed. */
bool disk_extract(char **shown);
/* Mounts a device for reading; the folder, to be freed, or NULL. */
char *disk_mount(const char *device, const char *type);
void disk_unmount(const char *folder);
/* OpenStack's config drive, for clouds without the service. */
bool drive_probe(void);
bool drive_extract(void);
/* A local NoCloud seed: user-data (or config), meta-data, network-config, vendor-data of a folder. */
bool folder_extract(const char *folder, bool *found);

/* -- the network of bare metal */

/* One command a line; what it needs to know of the machine's links is in `links`: "NAME MAC\n"... To be freed. */
char *metal_plan(const struct json_document *document, const char *links, char reason[static 160]);
/* Carries a plan out by rtnetlink. */
bool plan_apply(char *plan);
char *links_list(void);
