/* VMware's guestinfo, through the hypervisor's own port ("backdoor"): open a channel, send a request four bytes at a
 * time, receive the answer the same way. Only where CPUID says that the hypervisor is VMware's: elsewhere the port
 * instruction would end the process.
 *
 *     AX  0x564D5868, later the result      CX  0x1E, the step in its upper half; comes back as a status there
 *     BX  the step's argument, its result   DX  port 0x5658, the channel in its upper half
 *     SI, DI  the channel's cookie
 */
#include "metadata.h"

#include <stdio.h>
#include <string.h>

#define MAGIC 0x564D5868u
#define PORT 0x5658u
#define COMMAND 0x1Eu
#define RPCI 0x49435052u
#define COOKIE 0x80000000u
#define REPLY_MAX (2u << 20)

enum step { OPEN, SEND_SIZE, SEND, RECEIVE_SIZE, RECEIVE, RECEIVE_END, CLOSE };
enum { SUCCESS = 1, HAS_REPLY = 2 };

struct registers {
    uint32_t bx, cx, dx, si, di;
};

/* Tests put a host of their own behind it. */
void vmware_port(struct registers *at);
bool vmware_here(void);

#ifndef METADATA_TEST
#if defined(__x86_64__)
#include <cpuid.h>

bool vmware_here(void)
{
    uint32_t a, b, c, d, name[3];
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 31))
        return false;
    __cpuid(0x40000000, a, name[0], name[1], name[2]);
    return memcmp(name, "VMwareVMware", 12) == 0;
}

void vmware_port(struct registers *at)
{
    uint32_t ax = MAGIC;
    __asm__ volatile("inl %%dx, %%eax"
                     : "+a"(ax), "+b"(at->bx), "+c"(at->cx), "+d"(at->dx), "+S"(at->si), "+D"(at->di)
                     :
                     : "memory");
}
#else
bool vmware_here(void)
{
    return false; /* other processors have no such port */
}

void vmware_port(struct registers *at)
{
    *at = (struct registers){0};
}
#endif
#endif

struct channel {
    uint32_t number, si, di;
};

/* One step; the status that came back. */
static unsigned step(struct channel *channel, enum step what, uint32_t argument, struct registers *result)
{
    *result = (struct registers){.bx = argument, .cx = COMMAND | (uint32_t)what << 16,
                                 .dx = PORT | channel->number << 16, .si = channel->si, .di = channel->di};
    vmware_port(result);
    return result->cx >> 16;
}

static bool channel_open(struct channel *channel)
{
    struct registers result;
    *channel = (struct channel){0};
    if (!(step(channel, OPEN, RPCI | COOKIE, &result) & SUCCESS))
        return false;
    *channel = (struct channel){.number = result.dx >> 16, .si = result.si, .di = result.di};
    return true;
}

static bool channel_send(struct channel *channel, const char *text)
{
    struct registers result;
    size_t length = strlen(text);
    if (!(step(channel, SEND_SIZE, (uint32_t)length, &result) & SUCCESS))
        return false;
    for (size_t at = 0; at < length; at += 4) {
        uint32_t word = 0;
        memcpy(&word, text + at, length - at < 4 ? length - at : 4);
        if (!(step(channel, SEND, word, &result) & SUCCESS))
            return false;
    }
    return true;
}

/* The reply with a final NUL, to be freed, or NULL. */
static char *channel_receive(struct channel *channel, size_t *length)
{
    struct registers result;
    unsigned status = step(channel, RECEIVE_SIZE, 0, &result);
    if (!(status & SUCCESS) || !(status & HAS_REPLY) || result.dx >> 16 != SEND_SIZE || result.bx > REPLY_MAX)
        return NULL;
    *length = result.bx;
    char *text = must_alloc(*length + 1);
    for (size_t at = 0; at < *length; at += 4) {
        if (!(step(channel, RECEIVE, SUCCESS, &result) & SUCCESS) || result.dx >> 16 != SEND) {
            free(text);
            return NULL;
        }
        memcpy(text + at, &result.bx, *length - at < 4 ? *length - at : 4);
    }
    step(channel, RECEIVE_END, SUCCESS, &result);
    return text;
}

/* A value of guestinfo as it was set, or NULL: the answer begins with 1 and a blank when there is one. */
static char *guestinfo(const char *name, size_t *length)
{
    struct channel channel;
    struct registers result;
    char *text = NULL;
    if (!channel_open(&channel))
        return NULL;
    scoped_free char *request = format("info-get guestinfo.%s", name);
    if (channel_send(&channel, request))
        text = channel_receive(&channel, length);
    step(&channel, CLOSE, 0, &result);
    if (!text || *length < 2 || text[0] != '1' || text[1] != ' ') {
        free(text);
        return NULL;
    }
    *length -= 2;
    memmove(text, text + 2, *length + 1);
    return text;
}

static bool is_blank(const char *text)
{
    return !*text || !strcmp(text, " ") || !strcmp(text, "---");
}

/* The value decoded as NAME.encoding says. NULL: there is none, or (said) it can't be decoded. */
static char *decoded(const char *name, size_t *length, bool *complete)
{
    size_t size, unpacked;
    scoped_free char *coding_name = format("%s.encoding", name);
    char *text = guestinfo(name, length);
    if (!text || is_blank(text)) {
        free(text);
        return NULL;
    }
    scoped_free char *coding = guestinfo(coding_name, &size);
    bool zipped = coding && (!strcmp(coding, "gzip+base64") || !strcmp(coding, "gz+b64"));
    if (!coding || !*coding || !strcmp(coding, " "))
        return text;
    bool packed = zipped || !strcmp(coding, "base64") || !strcmp(coding, "b64");
    char *bytes = packed ? base64_decode(text, *length, &size) : NULL;
    free(text);
    *length = size;
    if (bytes && zipped) {
        char *plain = gzip_decode(bytes, size, USERDATA_MAX, &unpacked);
        free(bytes);
        bytes = plain;
        *length = unpacked;
    }
    if (!bytes) {
        note("VMware: guestinfo.%s is not %s", name, coding);
        *complete = false;
    }
    return bytes;
}

bool vmware_probe(const struct provider *provider)
{
    static const char *const names[] = {"userdata", "metadata", "vendordata"};
    (void)provider;
    for (size_t i = 0; vmware_here() && i < COUNT(names); i++) {
        size_t length;
        scoped_free char *text = guestinfo(names[i], &length);
        if (text && !is_blank(text))
            return true;
    }
    return false;
}

bool vmware_extract(const struct provider *provider)
{
    (void)provider;
    bool complete = true;
    size_t length;
    scoped_free char *metadata = decoded("metadata", &length, &complete);
    if (metadata)
        store_cloud_metadata(metadata, length);
    scoped_free char *vendordata = decoded("vendordata", &length, &complete);
    if (vendordata)
        complete &= store("vendordata", vendordata, length, 0644);
    scoped_free char *userdata = decoded("userdata", &length, &complete);
    if (userdata)
        complete &= store_userdata(userdata, length);
    return complete;
}
