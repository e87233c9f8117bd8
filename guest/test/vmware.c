/* A host behind VMware's port: answers info-get from a file of NAME=VALUE lines, VMWARE_GUESTINFO. Strict: whoever
 * breaks the order of the steps, or uses a channel that isn't his, ends here. */
#include "../include/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct registers {
    uint32_t bx, cx, dx, si, di;
};
bool vmware_here(void);
void vmware_port(struct registers *at);

enum step { OPEN, SEND_SIZE, SEND, RECEIVE_SIZE, RECEIVE, RECEIVE_END, CLOSE };
#define CHANNEL 3u
#define COOKIE_HIGH 0x11112222u
#define COOKIE_LOW 0x33334444u

static bool is_open;
static char request[256], *reply;
static size_t expected, got, length, given;

static void wrong(const char *what)
{
    fprintf(stderr, "vmware: %s\n", what);
    abort();
}

static void answer(void)
{
    scoped_free char *text = read_file(getenv("VMWARE_GUESTINFO"), 1 << 20, NULL);
    char *rest = text;
    free(reply);
    reply = must_dup("0 No value found");
    for (char *line; (line = next_line(&rest));) {
        char *equals = strchr(line, '=');
        *equals = 0;
        scoped_free char *wanted = format("info-get guestinfo.%s", line);
        if (strcmp(wanted, request) == 0) {
            free(reply);
            reply = format("1 %s", equals + 1);
        }
    }
    length = strlen(reply);
    given = 0;
}

bool vmware_here(void)
{
    return getenv("VMWARE_GUESTINFO") != NULL;
}

void vmware_port(struct registers *at)
{
    unsigned step = at->cx >> 16;
    bool hurt = getenv("VMWARE_BREAKS") != NULL;
    if ((at->cx & 0xFFFF) != 0x1E || (at->dx & 0xFFFF) != 0x5658)
        wrong("not a message");
    if (step == OPEN) {
        if (is_open || at->bx != (0x49435052u | 0x80000000u))
            wrong("opened twice, or not for RPCI");
        is_open = true;
        *at = (struct registers){.cx = 1u << 16, .dx = CHANNEL << 16, .si = COOKIE_HIGH, .di = COOKIE_LOW};
        return;
    }
    if (!is_open || at->dx >> 16 != CHANNEL || at->si != COOKIE_HIGH || at->di != COOKIE_LOW)
        wrong("not his channel");
    at->cx = 1u << 16;
    if (step == SEND_SIZE) {
        expected = at->bx;
        got = 0;
        memset(request, 0, sizeof(request));
        if (expected >= sizeof(request))
            wrong("request too long");
        at->cx |= 0x80u << 16; /* "there is a faster way" */
    } else if (step == SEND) {
        if (got >= expected)
            wrong("more than it said");
        memcpy(request + got, &at->bx, expected - got < 4 ? expected - got : 4);
        got += 4;
        if (got >= expected)
            answer();
    } else if (step == RECEIVE_SIZE) {
        if (got < expected)
            wrong("asked before it has said all");
        at->cx |= 2u << 16;
        at->bx = hurt ? 0xFFFFFFF0u : (uint32_t)length;
        at->dx = SEND_SIZE << 16;
    } else if (step == RECEIVE) {
        if (at->bx != 1 || given >= length)
            wrong("received without thanks, or too much");
        at->bx = 0;
        memcpy(&at->bx, reply + given, length - given < 4 ? length - given : 4);
        given += 4;
        at->dx = SEND << 16;
    } else if (step == RECEIVE_END) {
        if (given < length)
            wrong("ended too early");
    } else if (step == CLOSE) {
        is_open = false;
        free(reply);
        reply = NULL;
    } else {
        wrong("unknown step");
    }
}
